"""The simulation fabric: runs plans in virtual time, in one process, deterministically.

`Simulation().run(plan, folder)` leaves a trace in a folder; `Simulation.from_plan(plan)` gives the run
itself, a `World`, into a test's hands. Same plan, same seed: the same trace, byte for byte.

>>> from underlay.node import Node
>>> from underlay.simulation import Simulation, plan_of
>>> world = Simulation.from_plan(plan_of({"a": {"node": Node}, "b": {"node": Node}}, [("a", "b")]))
>>> world.run_until(3.0)
>>> [record["event"] for record in world.records()]
['run-started', 'node-started', 'node-started']
"""

from underlay.simulation.fabric import Simulation
from underlay.simulation.scenario import every_pair, plan_of
from underlay.simulation.tamper import Rule
from underlay.simulation.world import World

__all__ = ["Rule", "Simulation", "World", "every_pair", "plan_of"]
