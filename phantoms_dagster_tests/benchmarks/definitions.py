"""The product's definitions with the stand-ins of `local_stand_ins` for voice and studio: `open_stack(module=STAND_INS)`.

For benchmarks whose subject is orchestration and not ffmpeg. The parts are exchanged when this module is loaded, in the workers'
parent and in the code server, so that every run that is forked from them has them.
"""

from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster_tests.benchmarks.local_stand_ins import exchange_local_parts

exchange_local_parts()

defs = build_definitions()
