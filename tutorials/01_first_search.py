"""A first search, in about a second: no data, no network, just the moving parts.

    python tutorials/01_first_search.py

A *trial* is one run of your train function with one configuration. A search starts many of them,
as many at a time as this machine has room for, and remembers what each has reported.
"""

import math
import random
import time

import distsearch as ag


# 1. Say what may vary. `ag.Real`, `ag.Int`, `ag.Choice`, ... are spaces: the search picks a value
#    from each of them for every trial. Anything else, like the momentum here, is a constant.
#    `log=True` is right where 0.001 to 0.01 matters as much as 0.01 to 0.1.
@ag.args(
    lr=ag.Real(1e-4, 1e-1, log=True),
    wd=ag.Real(1e-5, 1e-3, log=True),
    momentum=0.9,
    epochs=10,
)
def train_fn(args, reporter):
    # 2. Train as you would without a search. `args` has the values of this trial. What is printed
    #    here shows up in your terminal, wherever the trial runs.
    print(f"task {args.task_id}: lr {args.lr:.5f}, wd {args.wd:.6f}")
    draw = random.Random(args.task_id)
    # This stands for a real network: it learns best with a learning rate near 0.01.
    quality = math.exp(-(math.log10(args.lr / 0.01) ** 2))
    for epoch in range(args.epochs):
        time.sleep(0.01)
        accuracy = quality * (1 - 1.8 ** -(epoch + 1)) - 0.02 * draw.random()
        # 3. Report as often as you like; "accuracy" is what the search looks at.
        reporter(epoch=epoch + 1, accuracy=accuracy)


# 4. Run it. Each trial is a process of its own and gets one CPU; the rest of this file must not
#    run again in them, hence the `if` around it.
if __name__ == "__main__":
    with ag.scheduler.FIFOScheduler(train_fn, resource={"num_cpus": 1}, seed=1) as scheduler:
        print(scheduler)  # the nodes and their slots: here, this machine
        scheduler.run(num_trials=12)  # returns at once ...
        scheduler.join_jobs()  # ... and this waits for the trials to end

        # 5. Look at the results. A configuration is a plain dict: keep it as JSON, or hand it
        #    to `scheduler.run_with_config(config)`.
        print()
        print(f"best configuration: {scheduler.get_best_config()}")
        print(
            f"best accuracy:      {scheduler.get_best_reward():.4f} "
            f"(task {scheduler.get_best_task_id()})"
        )

        # The reports of every trial are at hand too, and so is a picture of them.
        picture = scheduler.folder / "curves.png"
        curves = scheduler.get_training_curves(filename=str(picture))
        first, last = curves[0][0], curves[0][-1]
        print(f"task 0 went from {first[1]:.3f} to {last[1]:.3f} in {last[0]:.0f} epochs")
        print(f"curves of all {len(curves)} trials: {picture}")

        # How each trial ended. A trial that crashes is only one of these rows, with its traceback
        # in `trial.error`; the search goes on.
        for trial in scheduler.trials[:3]:
            print(f"task {trial.id}: {trial.status.value} after {trial.seconds:.2f} s")
