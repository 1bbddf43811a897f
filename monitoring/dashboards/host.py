"""How the servers are: processor, memory, disks, network, clock."""

from __future__ import annotations

from monitoring.dashboards.panels import HOSTS, NO, Area, Board, Graph, Panel, Row, Stat, rising
from monitoring.dashboards.queries import DISKS, HOST, RATE, Query

CORES = f'count by (host) (node_cpu_seconds_total{{{HOST},mode="idle"}})'
FILES = f"{HOST},{DISKS}"
MOUNT, DEVICE = "{{host}} {{mountpoint}}", "{{host}} {{device}}"
OUTSIDE = f'{HOST},id="/",interface!~"lo|veth.*|br-.*|docker.*"'

NOW: tuple[Panel, ...] = (
    Stat("Up since", "When the server was started last.", (Query(f"node_boot_time_seconds{{{HOST}}} * 1000"),), unit="dateTimeFromNow"),
    Stat("Cores", "Processor cores.", (Query(CORES),)),
    Stat("Memory", "Memory in all.", (Query(f"node_memory_MemTotal_bytes{{{HOST}}}"),), unit="bytes"),
    Stat(
        "Clock", "Whether the clock follows a time server.", (Query(f"node_timex_sync_status{{{HOST}}}"),),
        unit="bool_yes_no", thresholds=((None, "orange"), (1, "green")), alerts=("ClockUnsynchronised",),
    ),
    Stat(
        "Read-only file systems", "File systems that took no writes any more.",
        (Query(f"sum by (host) (node_filesystem_readonly{{{FILES}}})"),),
        thresholds=NO, alerts=("FilesystemReadOnly",),
    ),
    Stat(
        "Killed for memory", "Programs that the kernel ended in the last hour because memory ran out.",
        (Query(f"increase(node_vmstat_oom_kill{{{HOST}}}[1h])"),), thresholds=NO, alerts=("OutOfMemoryKill",),
    ),
)  # fmt: skip

WORK: tuple[Panel, ...] = (
    Area(
        "CPU", "Share of all cores, by what they do.",
        (Query(
            f'sum by (host, mode) (rate(node_cpu_seconds_total{{{HOST},mode!="idle"}}{RATE})) / on (host) group_left () {CORES}',
            "{{host}} {{mode}}",
        ),),
        unit="percentunit",
    ),
    Graph(
        "Load per core", "Programs that run or wait, over 5 minutes; above 1 some wait.",
        (Query(f"max by (host) (node_load5{{{HOST}}}) / {CORES}"),), thresholds=rising(1, 2), alerts=("LoadHigh",),
    ),
    Graph(
        "Memory", "Share that cannot be given to anybody else.",
        (Query(f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes"),),
        unit="percentunit", thresholds=rising(0.85, 0.92), alerts=("MemoryLow", "OutOfMemoryKill"),
    ),
)  # fmt: skip

STORAGE: tuple[Panel, ...] = (
    Graph(
        "Disk", "How full each file system is.",
        (Query(f"1 - node_filesystem_avail_bytes{{{FILES}}} / node_filesystem_size_bytes", MOUNT),),
        unit="percentunit", thresholds=rising(0.85, 0.95), alerts=("DiskFull", "DiskWillFill"),
    ),
    Graph(
        "Inodes", "Share of the files that a file system can hold which is used.",
        (Query(f"1 - node_filesystem_files_free{{{FILES}}} / (node_filesystem_files > 0)", MOUNT),),
        unit="percentunit", thresholds=rising(0.85, 0.95), alerts=("InodesLow",),
    ),
    Graph(
        "Disk traffic", "Bytes read and written a second.",
        tuple(
            Query(f"sum by (host, device) (rate(node_disk_{how}_bytes_total{{{HOST}}}{RATE}))", f"{DEVICE} {how}")
            for how in ("read", "written")
        ),
        unit="Bps",
    ),
    Graph(
        "Disk at work", "Share of the time in which a disk had something to do.",
        (Query(f"rate(node_disk_io_time_seconds_total{{{HOST}}}{RATE})", DEVICE),), unit="percentunit",
    ),
)  # fmt: skip

REST: tuple[Panel, ...] = (
    Graph(
        "Network", "Bytes a second over the server's own interfaces.",
        tuple(
            Query(f"sum by (host) (rate(container_network_{how}_bytes_total{{{OUTSIDE}}}{RATE}))", f"{{{{host}}}} {how}")
            for how in ("receive", "transmit")
        ),
        unit="Bps",
    ),
    Graph(
        "Clock", "How far the kernel holds the clock to be off.", (Query(f"abs(node_timex_offset_seconds{{{HOST}}})"),),
        unit="s", thresholds=rising(0.05, 0.5), alerts=("ClockUnsynchronised",),
    ),
    Graph(
        "Age of textfiles", "Figures of backups and deploys come in files; how long each was not written.",
        (Query(f"time() - node_textfile_mtime_seconds{{{HOST}}}", "{{host}} {{file}}"),), unit="s", alerts=("TextfileError",),
    ),
    Stat(
        "Textfile errors", "Whether node_exporter could not read one of those files.",
        (Query(f"node_textfile_scrape_error{{{HOST}}}"),), thresholds=NO, alerts=("TextfileError",),
    ),
)  # fmt: skip

BOARD = Board(
    "host", "Servers", "How the servers are: processor, memory, disks, network, clock.",
    (Row(4, NOW), Row(8, WORK, "Work"), Row(8, STORAGE, "Disks"), Row(8, REST, "Network and clock")),
    (HOSTS,),
)  # fmt: skip
