"""A stand-in of sbatch: it runs each job at once, and returns when the job and those that it submits are done.

SBATCH_FOLDER is the folder of its state: `calls.jsonl`, the arguments of all calls, and `ID.ended` for each job. Tasks
of the first array that SBATCH_LOSES names, such as 1,3, do not run, as if their machine had failed.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

state = Path(os.environ["SBATCH_FOLDER"])
options = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:-1])
script = sys.argv[-1]


def numbers(array: str) -> list[int]:
    ends = [part.partition("-") for part in array.split(",")]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]


def run(job: int, task: int | None) -> int:
    """Run a job or a task as a cluster does. Returns its exit status."""
    environment, log = os.environ | {"SLURM_JOB_ID": str(job)}, options["output"].replace("%x", options["job-name"])
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": str(task)}
        log = log.replace("%A", str(job)).replace("%a", str(task))
        if job == 1 and str(task) in os.environ.get("SBATCH_LOSES", "").split(","):
            return 137
    with Path(log.replace("%j", str(job))).open("wb") as file:
        return subprocess.run([script], stdout=file, stderr=subprocess.STDOUT, env=environment).returncode


if "no-such-partition" in options.get("partition", ""):
    sys.exit("sbatch: error: Batch job submission failed: Invalid partition name specified")
kind, _, before = options.get("dependency", "afterany:").partition(":")
if kind != "afterany" or not all((state / f"{job}.ended").exists() for job in before.split(":") if job):
    sys.exit("sbatch: error: Batch job submission failed: Job dependency problem")
with (state / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")
job = len((state / "calls.jsonl").read_text().splitlines())
Path(script).chmod(0o755)
if "array" in options:
    array, _, limit = options["array"].partition("%")
    with ThreadPoolExecutor(int(limit or 2)) as tasks:
        results = list(tasks.map(lambda task: run(job, task), numbers(array)))
else:
    results = [run(job, None)]
(state / f"{job}.ended").write_text(json.dumps(results))
if "parsable" in options:
    print(f"{job};cluster")
