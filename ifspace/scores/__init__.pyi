from .layers import LayerList as LayerList
from .layers import ListedLayer as ListedLayer
from .layers import read_layers as read_layers
from .measures import COUNTS as COUNTS
from .measures import SCORES as SCORES
from .measures import NetworkScores as NetworkScores
from .measures import score as score
