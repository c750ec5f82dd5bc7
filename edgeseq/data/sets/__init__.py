"""The data sets that edgeseq knows by name: one file each, with their facts and their formats."""

from edgeseq.data.facts import Known
from edgeseq.data.sets.braille7 import BRAILLE7
from edgeseq.data.sets.ecg5000 import ECG5000
from edgeseq.data.sets.fsdd import FSDD
from edgeseq.data.sets.geotec_watch import GEOTEC_WATCH
from edgeseq.data.sets.mnist import PSMNIST, SMNIST
from edgeseq.data.sets.spar_watch import SPAR_WATCH, SPAR_WATCH_ACC
from edgeseq.data.sets.uci_har import UCI_HAR
from edgeseq.data.sets.wisdm_watch import WISDM_WATCH

REGISTERED: tuple[Known, ...] = (
    *(SPAR_WATCH, SPAR_WATCH_ACC, GEOTEC_WATCH, WISDM_WATCH, UCI_HAR),
    *(BRAILLE7, FSDD, PSMNIST, SMNIST, ECG5000),
)
