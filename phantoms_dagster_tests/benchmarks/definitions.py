"""The product's definitions with the stand-ins of `local_stand_ins` for voice and studio: `open_stack(module=STAND_INS)`.

For benchmarks that measure orchestration and not ffmpeg. The parts are replaced when this module is loaded, in the workers' parent
and in the code server, so every run that is forked from them has the stand-ins.
"""

from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster_tests.benchmarks.local_stand_ins import exchange_local_parts

exchange_local_parts()

defs = build_definitions()
