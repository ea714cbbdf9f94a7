from ouroloop.cli import main

raise SystemExit(main())
