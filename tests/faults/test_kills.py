"""SIGKILL in the middle: whoever dies, the run ends by itself, and its data are those of an undisturbed run."""

from tests.faults.harness import Field, Undisturbed


def test_a_run_outlives_its_workers(field: Field, undisturbed: Undisturbed) -> None:
    field.clock()
    field.worker()
    field.listening(1)
    run = field.migrate()
    for place in undisturbed.points(3, seed=1):
        field.worker()  # it starts while the other one still works
        field.has_looked_at(run, place)
        field.led(run).kill()
    run = field.ends(run)
    undisturbed.require_same(field, run)
