"""A site file from what Slurm says of itself, without a cluster. tests/slurm/test_sites_new.py has a real one."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from cluster import settings, slurm
from cluster.site import Site
from cluster.sites import __main__ as command
from cluster.sites import draft, offers, words
from cluster.sites.offers import Association, Nodes, Partition
from mtl.config import meanings

# Made after what clusters show in public: a national centre, a department's mixed purchases, a new cluster of one kind,
# one without GPUs.
CENTRE = """
small*|up|3-00:00:00|520/30/2/552|40|190000|(null)|type_l
small*|up|3-00:00:00|40/0/0/40|40|382000|nvme:3600|type_io
test|up|15:00|0/6/0/6|40|190000|(null)|type_l
hugemem|up|3-00:00:00|8/3/1/12|40|764000+|(null)|type_xl
gputest|up|15:00|0/2/0/2|40|382000|gpu:v100:4(S:0-1),nvme:3600|type_gpu
gpu|up|3-00:00:00|75/2/1/78|40|382000|gpu:v100:4(S:0-1),nvme:3600|type_gpu
gpusmall|up|1-12:00:00|6/0/0/6|128|490000|gpu:a100:4(S:0,2),nvme:3500|(null)
"""
DEPARTMENT = """
shared*|up|7-00:00:00|0/1/0/1|48|257336|gpu:geforce_gtx_1080_ti:10(S:0)|CPU_GEN:HSW,GPU_GEN:PSC
shared*|up|7-00:00:00|5/7/2/14|48|191552|gpu:geforce_rtx_2080_ti:10|CPU_GEN:SKX,GPU_GEN:TUR
shared*|up|7-00:00:00|0/3/0/3|32|191567|gpu:v100:4(S:0-1)|CPU_GEN:SKX,GPU_GEN:VLT
shared*|up|7-00:00:00|0/1/0/1|48|257330|gpu:geforce_gtx_1080_ti:8(S:0),gpu:titan_x:1|CPU_GEN:HSW,GPU_GEN:PSC
shared*|up|7-00:00:00|9/1/0/10|128|1031000|(null)|CPU_GEN:RME
ml|up|infinite|0/2/9/11|48|191552|gpu:geforce_rtx_2080_ti:10|CPU_GEN:SKX,GPU_GEN:TUR
retired|down|infinite|0/0/4/4|16|64000|gpu:k80:2|(null)
empty|up|infinite|0/0/0/0|0|0|(null)|(null)
"""
MODERN = """
cpu|up|2-12|10/2/0/12|192|773000|(null)|genoa,ib
h100*|up|2-00:00:00|15/1/0/16|96|1031000|gpu:h100:8(S:0-1)|h100,ib
mig|up|4:00:00|1/1/0/2|64|515000|gpu:a100_1g.5gb:14,gpu:a100:2|a100
"""
CPUS = """
CLUSTER: attic
long|up|infinite|3/1/0/4|64|257000|(null)|(null)
all*|up|30:00|3/1/0/4|64|257000|(null)|(null)
all*|up|30:00|1/0/0/1|2|7900|(null)|old
"""
ONE_ACCOUNT = "heart|one|heart||normal|\n"
TWO_ACCOUNTS = "heart|one|heart||normal,long,gpu|gpu\nheart|one|lung||normal|\nheart|one|brain|cpu|normal|\n"
ANSWERS = {
    "centre": (CENTRE, TWO_ACCOUNTS),
    "department": (DEPARTMENT, ONE_ACCOUNT),
    "modern": (MODERN, TWO_ACCOUNTS),
    "cpus": (CPUS, None),
}


class Clients:
    """A folder of client commands that say what they are told to, and note that they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "asked"
        folder.mkdir()

    def answers(self, name: str, text: str = "", error: str = "", status: int = 0) -> None:
        lines = [
            "PATH=/usr/bin:/bin",
            f'echo "{name} $*" >> "{self.log}"',
            f"cat <<'END'\n{text.strip()}\nEND",
            f"cat >&2 <<'END'\n{error}\nEND",
            f"exit {status}",
        ]
        self.does(name, "\n".join(lines))

    def does(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def are(self, cluster: str) -> None:
        partitions, accounts = ANSWERS[cluster]
        self.answers("sinfo", partitions)
        if accounts is not None:
            self.answers("sacctmgr", accounts)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clients:
    """The only commands there are; the working folder is an empty one."""
    made = Clients(tmp_path / "bin")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.chdir(tmp_path / "home")
    return made


def written(name: str = "my-site.yaml") -> tuple[str, dict[str, Any]]:
    """The file's text and its settings."""
    assert command.main(["new"] + ([name] if name != "my-site.yaml" else [])) == 0
    text = Path(name).read_text()
    return text, yaml.safe_load(text)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that it says; nothing is written."""
    before = sorted(Path().iterdir())
    assert command.main(["new", *argv]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("sites: ")
    assert error.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return error


def note(text: str, key: str) -> str:
    """What the comment above a setting says, its lines joined."""
    (block,) = [b for b in text.split("\n\n") if re.search(rf"^(# )?{key}:", b, re.MULTILINE)]
    return " ".join(line.removeprefix("#").strip() for line in block.splitlines())


def nodes(count: int = 1, cores: int = 8, memory_mb: int = 32_768, **gpus: int) -> Nodes:
    return Nodes(count, 0, cores, memory_mb, gpus, ())


def values(*partitions: Partition) -> dict[str, Any]:
    return {e.key: e.value for e in draft.entries(partitions, "none") if e.value is not None}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None), ("UNLIMITED", None), ("n/a", None), ("1-00:00:00", 1440), ("4:00:00", 240), ("30:00", 30),
        ("2:00", 2), ("2-12", 3600), ("30", 30), ("1-12:30", 2190), ("0:59", 0), ("365-00:00:00", 525_600),
    ],
)  # fmt: skip
def test_time_limits_are_minutes(text: str, minutes: int | None) -> None:
    assert offers.minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "1-", "-5", "1:2:3:4", "INVALID"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time limit"):
        offers.minutes(text)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}), ("", {}), ("gpu:2", {"": 2}), ("gpu", {"": 1}), ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:4(S:0,2),nvme:35", {"a100": 4}), ("nvme:3600,gpu:v100:4", {"v100": 4}), ("gpu:2080:4", {"2080": 4}),
        ("gpu:a100_1g.5gb:14,gpu:a100:2", {"a100_1g.5gb": 14, "a100": 2}), ("gpu:a30:0", {}), ("shard:32", {}),
        ("gpu:titan_x", {"titan_x": 1}), ("gpu:h100:4(S:0),gpu:h100:4(S:1)", {"h100": 8}),
    ],
)  # fmt: skip
def test_gpus_are_counted_by_type(gres: str, gpus: dict[str, int]) -> None:
    assert offers.gpus(gres) == gpus


def test_a_line_of_sinfo_is_a_partition_with_one_kind_of_nodes() -> None:
    read = offers.partition("gpu*|up|2-12|3/1/2/6|64+|515000+|gpu:a100:4(S:0-1)|a100,ib\n")
    assert read == Partition("gpu", True, True, 3600, (Nodes(6, 2, 64, 515_000, {"a100": 4}, ("a100", "ib")),))
    other = offers.partition("old|drain|infinite|0/0/0/0|0|0|(null)|(null)")
    assert other == Partition("old", False, False, None, ())


@pytest.mark.parametrize("line", ["p|up|soon|0/1/0/1|4|4000|gpu:2|x", "p|up|1:00|0/1/0/1|many|4000|gpu:2|x"])
def test_a_line_that_cannot_be_read_ends_it_in_one_line(
    line: str, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.answers("sinfo", line)
    assert "sinfo gives" in refused(capsys)


def test_lines_of_one_partition_are_put_together(clients: Clients) -> None:
    clients.are("department")
    found = offers.partitions()
    assert [(p.name, len(p.nodes), p.default, p.up) for p in found] == [
        ("shared", 5, True, True), ("ml", 1, False, True), ("retired", 1, False, False), ("empty", 0, False, True),
    ]  # fmt: skip


def test_the_partition_is_the_default_one_with_gpus_then_the_first_one_with_gpus_then_of_cpus() -> None:
    def made(name: str, default: bool = False, up: bool = True, **gpus: int) -> Partition:
        return Partition(name, default, up, None, (nodes(**gpus),))

    default = made("d", default=True)
    assert draft.chosen([made("a", a100=4), made("d", default=True, a100=1)]).name == "d"
    assert draft.chosen([default, made("a", a100=4), made("b", a100=8)]).name == "a"
    assert draft.chosen([default, made("a", up=False, a100=4), made("b", a100=8)]).name == "b"
    assert draft.chosen([made("d", default=True, up=False, a100=4), made("b", a100=8)]).name == "b"
    assert draft.chosen([made("c"), default]).name == "d"
    assert draft.chosen([made("x", up=False), made("c"), made("d", default=True, up=False)]).name == "c"
    assert draft.chosen([Partition("e", True, True, None, ()), made("c")]).name == "c"


def test_the_share_of_a_gpu_by_hand() -> None:
    place = Partition("g", True, True, None, (nodes(cores=64, memory_mb=4 * 102_400, a100=4), nodes(cores=900)))
    assert values(place) == {
        "kind": "slurm", "partition": "g", "gpus_per_node": 1, "cpus_per_rank": 16, "mem_gb": 90.0,
        "time_min": 240, "driver_time_min": 1440, "driver_mem_gb": 4.0,
    }  # fmt: skip


def test_more_gpus_than_cores_still_get_a_core() -> None:
    assert values(Partition("g", True, True, None, (nodes(cores=4, a100=8),)))["cpus_per_rank"] == 1


def test_without_gpus_it_is_a_modest_share() -> None:
    made = values(Partition("c", True, True, None, (nodes(cores=128, memory_mb=262_144),)))
    assert (made["gpus_per_node"], made["ranks_per_node"], made["cpus_per_rank"], made["mem_gb"]) == (0, 1, 4, 7.2)
    made = values(Partition("c", True, True, None, (nodes(cores=2, memory_mb=1_048_576),)))
    assert (made["cpus_per_rank"], made["mem_gb"]) == (2, 16.0)


@pytest.mark.parametrize(("limit", "fold", "driver"), [(None, 240, 1440), (60, 60, 60), (300, 240, 300), (0, 1, 2)])
def test_times_stay_within_the_partitions_limit(limit: int | None, fold: int, driver: int) -> None:
    place = Partition("g", True, True, limit, (nodes(a100=1),))
    made = values(place)
    assert (made["time_min"], made["driver_time_min"]) == (fold, driver)
    assert ("no time limit" if limit is None else f"at most {limit} min") in words.described(place)


def test_the_driver_fits_on_a_small_node() -> None:
    assert values(Partition("g", True, True, None, (nodes(memory_mb=4000, a100=2),)))["driver_mem_gb"] == 3.5


@pytest.mark.parametrize("cluster", ANSWERS)
def test_each_command_is_asked_once(cluster: str, clients: Clients) -> None:
    clients.are(cluster)
    written()
    names = [line.split()[0] for line in clients.asked()]
    assert names == (["sinfo", "sacctmgr"] if ANSWERS[cluster][1] else ["sinfo"])
    assert "--exact" in clients.asked()[0]  # else nodes of different memory are one line, as 191000+


@pytest.mark.parametrize("cluster", ANSWERS)
def test_the_file_is_a_site_and_says_what_each_setting_means(cluster: str, clients: Clients) -> None:
    clients.are(cluster)
    text, made = written()
    assert Site(**made) == Site(**OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Site), made)))  # type: ignore[arg-type]
    named = {
        line.removeprefix("# ").partition(":")[0] for line in text.splitlines() if re.match(r"(# )?[a-z_]+:", line)
    }
    offered = named & {f.name for f in dataclasses.fields(Site)}
    assert offered >= {*made, "account", "qos", "constraint", "time_min", "driver_time_min", "mem_gb"}
    for key in offered:
        meaning = " ".join(meanings(Site)[key].removeprefix("slurm: ").split())
        assert note(text, key).startswith(meaning), key
    assert "# slurm: " not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("cluster", ANSWERS)
def test_it_fits_on_every_node_and_within_every_limit(cluster: str, clients: Clients) -> None:
    clients.are(cluster)
    site = Site(**written()[1])
    place = next(p for p in offers.partitions() if p.name == site.partition)
    for n in [n for n in place.nodes if n.gpu_count or not place.has_gpus]:
        jobs = n.gpu_count or 1
        assert site.cpus_per_rank * jobs <= n.cores
        assert site.mem_gb * 1024 * jobs <= 0.9 * n.memory_mb
        assert site.driver_mem_gb * 1024 <= 0.9 * n.memory_mb
    assert site.time_min <= (place.limit_min or 240)
    assert site.driver_time_min <= (place.limit_min or 1440)


@pytest.mark.parametrize("cluster", ANSWERS)
def test_every_other_choice_stands_as_a_comment(cluster: str, clients: Clients) -> None:
    clients.are(cluster)
    text, made = written()
    place = next(p for p in offers.partitions() if p.name == made["partition"])
    for p in offers.partitions():
        limit = "no time limit" if p.limit_min is None else f"at most {p.limit_min} min"
        assert re.search(rf"\b{p.name}( \([^)]*\))?: {limit}; ", note(text, "partition"))
    for feature in {f for n in place.nodes for f in n.features if n.gpu_count or not place.has_gpus}:
        assert f"{feature} (" in note(text, "constraint")
    for a in offers.associations() if ANSWERS[cluster][1] else []:
        assert a.account in note(text, "account")
        if a.account == "heart":
            assert all(name in note(text, "qos") for name in a.qos)


def test_a_centre_whose_default_has_no_gpus(clients: Clients) -> None:
    clients.are("centre")
    text, made = written()
    assert (made["partition"], made["time_min"], made["driver_time_min"]) == ("gputest", 15, 15)
    assert (made["cpus_per_rank"], made["mem_gb"], made["account"], made["qos"]) == (10, 83.9, "heart", "gpu")
    told = note(text, "partition")
    assert "small (the cluster's default): at most 4320 min; 592 nodes (2 not usable now) of 40 cores, " in told
    assert "gpusmall: at most 2160 min; 6 nodes of 128 cores, 479 GB, 4 GPUs (a100)" in told


def test_a_department_of_many_kinds_takes_the_share_that_fits_all(clients: Clients) -> None:
    clients.are("department")
    text, made = written()
    assert (made["partition"], made["cpus_per_rank"], made["mem_gb"]) == ("shared", 4, 16.8)
    assert "several types" in note(text, "gpus_per_node")
    assert "at most 10 on a node" in note(text, "gpus_per_node")
    assert "GPU_GEN:TUR (14 nodes)" in note(text, "constraint")
    assert "CPU_GEN:RME" not in note(text, "constraint")  # of nodes without GPUs
    assert "retired (down): no time limit" in note(text, "partition")
    assert "empty: no time limit; no nodes" in note(text, "partition")


def test_without_accounting_it_goes_on_and_says_so(clients: Clients) -> None:
    clients.are("cpus")
    text, made = written()
    assert (made["partition"], made["gpus_per_node"], made["ranks_per_node"], made["cpus_per_rank"]) == ("all", 0, 1, 2)
    assert "sacctmgr is not on this machine" in note(text, "account")
    assert not {"account", "qos", "constraint"} & made.keys()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (
            "You are not running a supported plugin\nOnly 'accounting_storage/slurmdbd' is supported.",
            1,
        ),
        ("sacctmgr: error: slurm_persist_conn_open: Connection refused", 1),
        ("", 0),  # the user is in no account
    ],
)
def test_an_accounting_that_says_nothing_stops_nobody(error: str, status: int, clients: Clients) -> None:
    clients.are("modern")
    clients.answers("sacctmgr", "", error, status)
    text, made = written()
    assert "account" not in made
    assert "not known, and left to Slurm: " in note(text, "account")
    assert (error.splitlines() or ["knows no account of "])[-1].removeprefix("sacctmgr: error: ") in note(text, "qos")


def test_one_account_is_left_to_slurm_and_shown(clients: Clients) -> None:
    clients.are("department")
    text, made = written()
    assert not {"account", "qos"} & made.keys()
    assert "\n# account: heart\n" in text
    assert "\n# qos: normal\n" in text


def test_of_several_accounts_the_default_is_named_with_its_qos() -> None:
    place = Partition("gpu", True, True, None, (nodes(a100=1),))
    mine = [
        Association("lung", False, "", ("normal",), ""),
        Association("heart", True, "", ("normal", "long"), "long"),
    ]
    made = {e.key: e for e in draft.entries([place], mine)}
    assert (made["account"].value, made["qos"].value) == ("heart", "long")
    assert made["account"].notes == ["your default account; others: lung"]
    assert made["qos"].notes == ["the default of this account; others: normal"]


def test_an_account_for_another_partition_is_not_taken() -> None:
    place = Partition("gpu", True, True, None, (nodes(a100=1),))
    mine = [Association("heart", True, "cpu", ("c",), ""), Association("lung", False, "gpu", ("g", "h"), "")]
    made = {e.key: e for e in draft.entries([place], mine)}
    assert made["account"].value == "lung"
    assert (made["qos"].value, made["qos"].example) == (None, "g")


def test_of_one_account_what_is_for_the_partition_comes_first() -> None:
    place = Partition("gpu", True, True, None, (nodes(a100=1),))
    mine = [Association("heart", True, "", ("a", "b"), "a"), Association("heart", True, "gpu", ("c",), "c")]
    made = {e.key: e for e in draft.entries([place], mine)}
    assert (made["account"].value, made["qos"].value) == (None, "c")


def test_accounts_of_several_clusters_are_left_to_slurm_unless_they_are_the_same(clients: Clients) -> None:
    clients.are("modern")
    clients.answers("sacctmgr", "a|one|a||normal|\na|one|b||normal|\nc|two|c||normal|\n")
    text, made = written()
    assert "account" not in made
    assert "several clusters (one: a, b; two: c)" in note(text, "account")
    clients.answers("sacctmgr", "b|one|a||normal|\nb|one|b||normal|\nb|two|a||normal|\nb|two|b||normal|\n")
    assert written("again.yaml")[1]["account"] == "b"


@pytest.mark.parametrize(
    ("kind", "old"),
    [
        ("v100", True), ("tesla_v100-sxm2-32gb", True), ("v100l", True), ("P100", True), ("titan_v", True),
        ("nvidia_titan_xp", True), ("geforce_gtx_1080_ti", True), ("titan_rtx", False), ("a100", False),
        ("h100", False), ("t4", False), ("a100_1g.5gb", False), ("", False), ("gh200", False),
        ("geforce_rtx_2080_ti", False),
    ],
)  # fmt: skip
def test_volta_and_pascal_need_another_torch(kind: str, old: bool) -> None:
    gpus = Partition("g", True, True, None, (nodes(**{kind: 1}),))
    (entry,) = [e for e in draft.entries([gpus], "none") if e.key == "gpus_per_node"]
    assert any("cu126" in line and "CUDA 13" in line for line in entry.notes) == old


def test_odd_names_stay_names(clients: Clients) -> None:
    clients.answers(
        "sinfo", "no*|up|1:00:00|0/1/0/1|8|32000|gpu:1|it's: #1,\x07bell,\u00fc\n007|up|1:00|0/1/0/1|4|4000||\n"
    )
    clients.answers("sacctmgr", "1e3|c|1e3||yes,null|null\n1e3|c|x: y||normal|\n")
    _, made = written()
    assert (made["partition"], made["account"], made["qos"]) == ("no", "1e3", "null")


def test_it_says_what_it_wrote_and_what_comes_next(clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.are("modern")
    written("hospital.yaml")
    out = capsys.readouterr().out
    assert out.startswith(
        "hospital.yaml written: kind=slurm, partition=h100, account=heart, qos=gpu, gpus_per_node=1, "
    )
    launch = "python cluster/launch.py sweep=branch_location data.store=STORE site=hospital.yaml"
    assert [line.strip() for line in out.splitlines()[-2:]] == [f"{launch} plan=true", launch]
    assert "# Used as site=hospital.yaml." in Path("hospital.yaml").read_text()


def test_a_file_that_exists_is_left_alone_and_slurm_is_not_asked(
    clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.are("modern")
    Path("my-site.yaml").write_text("kind: slurm\n")
    assert "my-site.yaml exists" in refused(capsys)
    assert Path("my-site.yaml").read_text() == "kind: slurm\n"
    Path("link.yaml").symlink_to("nowhere")
    assert "link.yaml exists" in refused(capsys, "link.yaml")
    assert clients.asked() == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("site.txt", "ends in .yaml"), ("my site.yaml", "letters, digits"), ("local.yaml", "there already"),
        ("nowhere/my.yaml", "make it first"), (".yaml", "ends in .yaml"),
    ],
)  # fmt: skip
def test_a_name_that_site_would_not_take_is_refused_before_slurm_is_asked(
    name: str, told: str, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.are("modern")
    assert told in refused(capsys, name)
    assert clients.asked() == []


def test_a_file_that_cannot_be_written_is_one_line(clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.are("modern")
    assert "cannot be written: File name too long" in refused(capsys, "a" * 240 + ".yaml")


def test_no_slurm_here(clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sinfo is not found" in refused(capsys)
    clients.answers("sinfo", "", "sinfo: fatal: Could not establish a configuration source", 1)
    assert "Could not establish a configuration source" in refused(capsys)


def test_a_slurm_that_does_not_answer(
    clients: Clients, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients.answers("sinfo", "", "slurm_load_partitions: Unable to contact slurm controller (connect failure)", 1)
    assert "Unable to contact" in refused(capsys)
    clients.does("sinfo", "PATH=/usr/bin:/bin\nexec sleep 60")
    monkeypatch.setattr(slurm, "LONGEST_S", 0.2)
    assert "no answer within 0.2 s" in refused(capsys)


@pytest.mark.parametrize(
    ("answer", "listed"),
    [("", "none"), ("gpu*|down|infinite|0/0/2/2|8|32000|gpu:2|x\nempty|up|infinite|0/0/0/0|0|0||", "gpu, empty")],
)
def test_no_partition_is_up(answer: str, listed: str, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("sinfo", answer)
    assert f"no partition is up (sinfo lists: {listed})" in refused(capsys)


def test_without_a_command_it_shows_its_help() -> None:
    done = subprocess.run([sys.executable, "-m", "cluster.sites"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m cluster.sites" in done.stderr
    assert "write a site file" in done.stderr


def test_code_beside_the_sites_is_no_site() -> None:
    assert set(settings.choices("site")) == {p.stem for p in (settings.GROUPS["site"]).glob("*.yaml")}
    assert {"local", "slurm"} <= set(settings.choices("site"))
    assert not {"draft", "offers", "words", "__main__"} & set(settings.choices("site"))
