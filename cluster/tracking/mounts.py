"""Whether a path lies on a network file system, whose locks a database cannot rely on."""

import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    (
        *("9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "dvs", "fhgfs", "fuse", "gfs", "gfs2"),
        *("glusterfs", "gpfs", "lustre", "mmfs", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2"),
        *("quobyte", "smb", "smb2", "smb3", "smbfs", "virtiofs", "wekafs"),
    )
)
LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})
"""of containers without root; every other fuse.* is taken for a network's (sshfs, s3fs, glusterfs and many more)"""


def network(path: Path, mountinfo: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, such as nfs4; None where it lies on a local one, or
    where nobody says (not Linux). mountinfo: the text of /proc/self/mountinfo, to be told instead of read."""
    if mountinfo is None:
        mountinfo = MOUNTINFO.read_text(errors="surrogateescape") if MOUNTINFO.exists() else ""
    kind = kind_of(path.resolve(), mountinfo)
    is_network = kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)
    return kind if is_network else None


def kind_of(path: Path, mountinfo: str) -> str:
    """The file system's type of the longest mount point above `path`, of the last one where several lie on each
    other; empty where there is none. path: absolute, without links."""
    longest, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(_plain(fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= longest:
            longest, kind = len(point.parts), after.split(" ")[0]
    return kind


def _plain(escaped: str) -> str:
    """A mount point as the kernel writes it: a blank is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), escaped)
