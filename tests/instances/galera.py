"""A private Galera cluster on one machine."""

import os
from pathlib import Path

from .components import GALERA_PROVIDER, find
from .mariadb import MariaDB
from .ports import free_port
from .sqlclient import SQLError
from .waiting import wait_until


class Galera:
    """A cluster under `folder`; `nodes` are its servers.

    For root they run as user mysql, who must be able to reach `folder`: an rsync server of root's would be
    user nobody.
    """

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        find("galera")
        self.folder = folder
        group_ports = [free_port() for _ in range(nodes)]
        cluster = "gcomm://" + ",".join(f"127.0.0.1:{port}" for port in group_ports)
        self.nodes = [self._node(f"node{index}", port, cluster) for index, port in enumerate(group_ports)]

    def start(self) -> None:
        """Bootstrap the cluster with the first node, and wait until all are synced."""
        try:
            for index, node in enumerate(self.nodes):
                node.start(*(["--wsrep-new-cluster"] if index == 0 else []))
            self.wait_synced()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all nodes, the first one last."""
        for node in reversed(self.nodes):
            node.stop()

    def kill(self, index: int) -> None:
        """kill -9 for a node."""
        self.nodes[index].kill()

    def rejoin(self, index: int) -> None:
        """Start a node anew, and wait until it is a synced member again."""
        self.nodes[index].start()
        self.wait_synced()

    def wait_synced(self, timeout: float = 60) -> None:
        """Wait until every running node is synced in one cluster of all running nodes."""
        running = [node for node in self.nodes if node.running()]
        wait_until(
            lambda: all(self.status(node) == ("Synced", "Primary", len(running)) for node in running),
            "a synced cluster",
            timeout,
        )

    def status(self, node: MariaDB) -> tuple[str, str, int]:
        """A node's state, its component's state and the cluster's size as it sees them."""
        names = ("wsrep_local_state_comment", "wsrep_cluster_status", "wsrep_cluster_size")
        try:
            rows = node.sql(f"SHOW GLOBAL STATUS WHERE Variable_name IN {names}")
        except SQLError:
            return "", "", 0
        found = {row[0]: row[1] for row in rows}
        state, component, size = (found.get(name, "") for name in names)
        return state, component, int(size or 0)

    def _node(self, name: str, group_port: int, cluster: str) -> MariaDB:
        folder = self.folder / name
        folder.mkdir()
        options = (
            f"gmcast.listen_addr=tcp://127.0.0.1:{group_port}",
            f"ist.recv_addr=127.0.0.1:{free_port()}",
            "gcache.size=16M",
        )
        return MariaDB(
            folder,
            "--wsrep_on=ON",
            f"--wsrep_provider={GALERA_PROVIDER}",
            "--binlog_format=ROW",
            "--innodb_autoinc_lock_mode=2",
            "--wsrep_sst_method=rsync",
            f"--wsrep_cluster_address={cluster}",
            f"--wsrep_node_name={name}",
            f"--wsrep_node_address=127.0.0.1:{group_port}",
            f"--wsrep_sst_receive_address=127.0.0.1:{free_port()}",
            f"--wsrep_provider_options={';'.join(options)}",
            user="mysql" if os.geteuid() == 0 else "",
        )
