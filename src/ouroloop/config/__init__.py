"""What a loop *is*: frozen and validated, one schema and no free-form key.

    section   what every section is, and its kinds of number
    named     a model that exists already
    data      the testbed, and how much of it
    cycle     how the next training set is put together
    curation  what becomes of the texts before that
    model     what learns, and how it is sampled from
    train     how a network is trained
    loop      one loop: all of these

Everything that is wrong with what was given ends in one `ConfigError` of one line: what was given,
what is allowed. Knows nothing about preset files: `presets.py` reads them.
"""

from ouroloop.config.curation import CurationConfig as CurationConfig
from ouroloop.config.curation import Oracle as Oracle
from ouroloop.config.curation import with_steps as with_steps
from ouroloop.config.cycle import CycleConfig as CycleConfig
from ouroloop.config.cycle import DataCycle as DataCycle
from ouroloop.config.data import USUAL_TESTBED as USUAL_TESTBED
from ouroloop.config.data import Data as Data
from ouroloop.config.data import LogicData as LogicData
from ouroloop.config.data import TextData as TextData
from ouroloop.config.loop import NO_PART as NO_PART
from ouroloop.config.loop import LoopConfig as LoopConfig
from ouroloop.config.loop import NeedsNetworkError as NeedsNetworkError
from ouroloop.config.loop import ResourceConfig as ResourceConfig
from ouroloop.config.loop import StageConfig as StageConfig
from ouroloop.config.loop import flatten as flatten
from ouroloop.config.model import EmpiricalConfig as EmpiricalConfig
from ouroloop.config.model import ModelConfig as ModelConfig
from ouroloop.config.model import PretrainedModelConfig as PretrainedModelConfig
from ouroloop.config.model import SamplingConfig as SamplingConfig
from ouroloop.config.named import NamedModel as NamedModel
from ouroloop.config.section import RENAMED as RENAMED
from ouroloop.config.section import Added as Added
from ouroloop.config.section import Number as Number
from ouroloop.config.section import Proportion as Proportion
from ouroloop.config.section import Section as Section
from ouroloop.config.section import Seed as Seed
from ouroloop.config.section import Temperature as Temperature
from ouroloop.config.section import Whole as Whole
from ouroloop.config.section import taken_over as taken_over
from ouroloop.config.section import with_new_names as with_new_names
from ouroloop.config.train import TrainConfig as TrainConfig
from ouroloop.errors import ConfigError as ConfigError
