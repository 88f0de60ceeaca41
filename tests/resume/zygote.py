"""A process that has imported everything and forks the ranks of one training run at a time.

Importing torch and TRL takes seconds and forking none, so a hundred runs are cheap, and each is still a process of
its own that a real SIGKILL ends. No thread is started and no tensor computed before the fork.

A line of standard input asks for a run: `{"processes": 2, "run": {...}}`, see `Run`. Two lines answer: its process
group, at once, and how its ranks ended, when all have: `{"group": 4711}`, `{"statuses": [-9, -9]}`.
"""

import gc
import json
import os
import signal
import socket
import sys
import traceback

from training_run import Run, train

from hf_llava_vqa.errors import TrainingStopped

ENDED = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)
"""Exit codes of a rank that ended as it should; the others do the same then."""


def main() -> None:
    gc.freeze()  # the children share these pages
    for line in sys.stdin:
        request = json.loads(line)
        ranks = fork_ranks(Run(**request["run"]), request["processes"])
        print(json.dumps({"group": ranks[0]}), flush=True)
        print(json.dumps({"statuses": wait_for(ranks)}), flush=True)


def fork_ranks(run: Run, processes: int) -> list[int]:
    """Start the ranks in a process group of their own; return their process ids, the first one names the group."""
    port = free_port()
    ranks: list[int] = []
    for rank in range(processes):
        process = os.fork()
        if process == 0:
            os.setpgid(0, ranks[0] if ranks else 0)
            be_rank(run, rank, processes, port)
        os.setpgid(process, ranks[0] if ranks else 0)
        ranks.append(process)
    return ranks


def be_rank(run: Run, rank: int, processes: int, port: int) -> None:
    """Train and end the process; whatever is printed goes to the run's log, also the reason of a failure."""
    status = 1
    try:
        log = os.open(run.log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if processes > 1:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ.update({name: str(value) for name, value in places.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        train(run, rank, processes)
        status = 0
    except TrainingStopped as stop:
        status = stop.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for(ranks: list[int]) -> list[int]:
    """Exit codes, in the order of the ranks. When one has failed, the others wait for it in vain and are killed."""
    codes: dict[int, int] = {}
    while len(codes) < len(ranks):
        process, status = os.waitpid(-ranks[0], 0)
        codes[process] = os.waitstatus_to_exitcode(status)
        if codes[process] not in ENDED:
            kill_group(ranks[0])
    kill_group(ranks[0])  # loader workers that a killed rank left behind
    return [codes[process] for process in ranks]


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
