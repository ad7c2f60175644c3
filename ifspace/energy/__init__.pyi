from .solve import (
    Search as Search,
)
from .solve import (
    best_energy as best_energy,
)
from .solve import (
    exact_energy as exact_energy,
)
from .solve import (
    rank as rank,
)
