from .analysis import Report as Report
from .analysis import analyze as analyze
from .decomposition import (
    decompose as decompose,
)
from .decomposition import (
    decomposition_of as decomposition_of,
)
from .edits import edits_of as edits_of
from .reorganization import (
    reorganization_of as reorganization_of,
)
from .reorganization import (
    reorganize as reorganize,
)
from .saving import (
    load as load,
)
from .saving import (
    save as save,
)
from .sources import network as network
from .tracing import trace as trace
