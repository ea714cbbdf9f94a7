"""A URL that says of no place where that is ends in one line, and no line shows a password."""

import re

import pytest

from ouroloop.record.urls import masked
from tests.conftest import CommandLine


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        ("postgresql://u:p%40ss@h/x", "could not log in with p@ss", "could not log in with ***"),
        ("postgresql://u:p%40ss@h/x", "cannot open postgresql://u:p%40ss@h/x", "cannot open postgresql://u:***@h/x"),
        ("", "http://someone:word@host:5000/api failed", "http://someone:***@host:5000/api failed"),
        ("postgresql://u:pa/ss@h:9/db", "no postgresql://u:pa/ss@h:9/db: pa/ss", "no postgresql://u:***@h:9/db: ***"),
        ("postgresql://u:p@ss@h/db", "no postgresql://u:p@ss@h/db", "no postgresql://u:***@h/db"),
        ("", "postgresql://me@corp:p?w@ss@h/db is away", "postgresql://me@corp:***@h/db is away"),
        ("postgresql://h/db?user=u&password=s%26t", "h/db?user=u&password=s%26t: s&t", "h/db?user=u&password=***: ***"),
        ("", "postgresql://h/db?sslpassword=word&user=u", "postgresql://h/db?sslpassword=***&user=u"),
        ("postgresql://u:25%25@h/x", "25%25 and 25%", "*** and ***"),
        ("http://h:5000", "http://h:5000 is away", "http://h:5000 is away"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db is gone at 10:30@night", "sqlite:////a/b.db is gone at 10:30@night"),
    ],
)
def test_no_password_is_shown(url: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUROLOOP_OPTUNA_URL", url)
    assert masked(text) == shown


ODD = {
    "sqlite://": "allowed is the path of a file",
    "sqlite:///": "allowed is the path of a file",
    "sqlite:///:memory:": "allowed is the path of a file",
    "sqlite:x.db": "allowed is the path of a file",
    "sqlite+pysqlite:///file:x.db?uri=true": "allowed is the path of a file",
    "sqlite:////tmp": "allowed is the path of a file",
    "postgresql://u:pa/ss@h:9/db": r"postgresql://u:\*\*\*@h:9/db, allowed is .* %2F for '/'",
    "postgresql://u:p@ss@h/db": r"postgresql://u:\*\*\*@h/db, allowed is .* %40 for '@'",
    "postgresql://h:99999/db": "allowed is a host, a port from 1 to 65535",
}


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "OUROLOOP_OPTUNA_URL"])
@pytest.mark.parametrize("url", ODD)
def test_a_url_of_no_place_is_one_line(
    variable: str, url: str, ouroloop: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)
    done = ouroloop("status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.match(f"ouroloop: {variable}: got .*{ODD[url]}", done.stderr)
