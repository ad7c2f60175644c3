from .choose import (
    best as best,
)
from .choose import (
    ranked as ranked,
)
from .dataset import (
    check_writable as check_writable,
)
from .dataset import (
    load as load,
)
from .dataset import (
    save as save,
)
from .design import (
    Catalogue as Catalogue,
)
from .design import (
    Design as Design,
)
from .design import (
    Funnel as Funnel,
)
from .design import (
    dominators as dominators,
)
from .design import (
    mark_dominated as mark_dominated,
)
from .design import (
    mark_networks as mark_networks,
)
from .design import (
    one_a_network as one_a_network,
)
from .design import published_names as published_names
