from .bench.entry import run_bench as run_bench
from .block import (
    Block as Block,
)
from .block import (
    Composition as Composition,
)
from .block import (
    Layer as Layer,
)
from .canonical import network_class as network_class
from .catalogue import (
    Catalogue as Catalogue,
)
from .catalogue import (
    Design as Design,
)
from .catalogue import (
    Funnel as Funnel,
)
from .catalogue import (
    best as best,
)
from .catalogue import (
    load as load,
)
from .catalogue import (
    save as save,
)
from .catalogue.setting import EnumerationSetting as EnumerationSetting
from .enumerate.run import (
    merge_folder as merge_folder,
)
from .enumerate.run import (
    run_in_folder as run_in_folder,
)
from .enumerate.search import enumerate_designs as enumerate_designs
from .errors import IfspaceError as IfspaceError
from .floors import Floors as Floors
from .groups.entry import find_groups as find_groups
from .infofield import (
    coverage_expr as coverage_expr,
)
from .infofield import (
    full_field_condition as full_field_condition,
)
from .infofield import (
    gain as gain,
)
from .kinds import (
    KINDS as KINDS,
)
from .kinds import (
    ConvKind as ConvKind,
)
from .reach import (
    Reference as Reference,
)
from .reach import (
    channel_field as channel_field,
)
from .show.describe import (
    BlockDescription as BlockDescription,
)
from .show.describe import (
    describe as describe,
)
from .stages.entry import layout as layout
