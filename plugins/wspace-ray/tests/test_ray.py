"""Ray: a zoo made by nodes of which one goes in the middle has the same bytes; a cluster that is not there is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wspace_ray._engine import Ray

from tests.conftest import Wspace, cache, common, inside  # noqa: F401 (fixtures)
from wspace.testing import conformance

SMALL = [
    "tasks.seen=96", "tasks.unseen_orders=0", "tasks.evaluate=4", "zoo.together=8", "zoo.steps=300", "opponents.steps=5",
    "task_loss.steps=2", "task_loss.check_every=1", "train.steps=2", "train.check_every=1", "evaluate.bootstrap=100",
]  # fmt: skip

test_conformance = pytest.mark.slow(conformance("ray"))


def run(runs: Path, *settings: str) -> subprocess.Popen[str]:
    options = [option for setting in (*SMALL, *settings) for option in ("--set", setting)]
    command = [sys.executable, "-m", "wspace", "run", "apart/nano-ordered", "--runs", str(runs), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as many as a piece has of a node
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tensors(runs: Path) -> dict[str, bytes]:
    files = [*runs.rglob("*.safetensors"), *runs.rglob("scores.json"), *runs.rglob("index.jsonl")]
    return {str(file.relative_to(runs)): file.read_bytes() for file in files}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, and a head that does no work."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_goes_in_the_middle_changes_no_byte(cluster: Any, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    there = run(tmp_path / "there", f"engine={{use: ray, address: '{cluster.address}'}}")
    while len(list(tmp_path.glob("there/*/zoo-*/networks-*.safetensors"))) < 2 and there.poll() is None:
        time.sleep(0.01)
    assert there.poll() is None, there.communicate()[0]
    cluster.remove_node(nodes[0], allow_graceful=False)
    said, _ = there.communicate()
    assert there.returncode == 0, said
    here = run(tmp_path / "here")
    assert here.communicate() and here.returncode == 0
    assert tensors(tmp_path / "here") == tensors(tmp_path / "there") and len(tensors(tmp_path / "here")) > 15


@pytest.mark.slow
def test_four_nodes_make_the_bytes_that_one_makes(cluster: Any, tmp_path: Path) -> None:
    for count, more in ((1, 1), (4, 3)):
        for _ in range(more):
            cluster.add_node(num_cpus=1)
        there = run(tmp_path / str(count), f"engine={{use: ray, address: '{cluster.address}'}}")
        assert there.communicate() and there.returncode == 0
    assert tensors(tmp_path / "1") == tensors(tmp_path / "4")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:7", "ray://127.0.0.1:7", "no-such-host.invalid:6379", "127.0.0.1:99999"]
)
def test_an_address_where_nobody_answers_is_one_sentence(tmp_path: Path, address: str) -> None:
    from wspace.api import UserError

    with pytest.raises(UserError) as caught:
        Ray(address).open()
    assert str(caught.value) == (
        f"engine.address: nobody answers at {address}; `ray start --head` starts one and prints its address"
    )


def test_a_run_whose_cluster_does_not_answer_leaves_nothing(inside: Wspace, tmp_path: Path) -> None:  # noqa: F811
    done = inside(
        "run", "apart/nano-ordered", "--engine", "ray", "--address", "127.0.0.1:7", "--runs", tmp_path / "runs",
        "--set", "against=[oracle]",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", "error: engine.address: nobody answers at 127.0.0.1:7; `ray start --head` starts one and prints its address\n"
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_piece_for_which_no_node_is_large_enough_is_refused_and_a_signal_ends_as_without_ray() -> None:
    import signal

    from wspace.api import UserError

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError) as caught:
        Ray(workers=1, cpus=8).open()
    assert str(caught.value) == "engine.cpus: a piece is to have 8, and no machine of the cluster has more than 1"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_that_runs_has_workers_of_its_own() -> None:
    from wspace.api import UserError

    with pytest.raises(UserError) as caught:
        Ray("auto", workers=2)
    assert str(caught.value) == (
        "engine.workers: a cluster that runs has its own; leave engine.workers or engine.address out"
    )
