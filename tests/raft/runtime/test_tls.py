"""TLS between nodes: certificates on both sides, and nobody with another authority's."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from raft_cluster import SETTINGS, Cluster, eventually

from denizen.raft import Tls

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates for nodes."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory / name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.directory.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._write("authority.pem", self._sign(self.name, self.key, authority=True))

    def tls(self, node: str) -> Tls:
        """A node's certificate of this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
        certificate = self._write(f"{node}.pem", self._sign(subject, key, authority=False))
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key_file = self._write(f"{node}.key", key.private_bytes(serialization.Encoding.PEM, *private))
        return Tls.from_files(certificate, key_file, str(self.directory / "authority.pem"))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(hours=1))
            .not_valid_after(NOW + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if authority:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        return str(path)


@pytest.mark.parametrize("secret", [b"", b"a secret as well as certificates"])
async def test_nodes_with_certificates_of_one_authority_make_a_cluster(tmp_path, secret):
    tls = Authority(tmp_path, "ours").tls("node")
    async with Cluster(tmp_path, 3, replace(SETTINGS, secret=secret, tls=tls)) as cluster:
        for id in (1, 2, 3):
            await cluster.nodes[id].propose(b"x" * 100_000)
        await cluster.converge([b"x" * 100_000] * 3)


async def test_a_node_with_a_strangers_certificate_stays_out(tmp_path):
    ours, theirs = Authority(tmp_path, "ours").tls("node"), Authority(tmp_path, "theirs").tls("node")
    async with Cluster(tmp_path, 3, replace(SETTINGS, tls=ours)) as cluster:
        await cluster.leader()
        stranger = await cluster.follower()
        await cluster.stop(stranger.id)
        cluster.settings = replace(SETTINGS, tls=theirs)
        stranger = await cluster.start(stranger.id)
        member = next(node for id, node in cluster.nodes.items() if id != stranger.id)
        await eventually(lambda: len(stranger.status().unreachable) == 2)
        assert await member.propose(b"x") == 1
        assert cluster.machines[stranger.id].commands == []


async def test_a_node_without_tls_stays_out(tmp_path):
    tls = Authority(tmp_path, "ours").tls("node")
    async with Cluster(tmp_path, 3, replace(SETTINGS, tls=tls)) as cluster:
        await cluster.leader()
        plain = await cluster.follower()
        await cluster.stop(plain.id)
        cluster.settings = SETTINGS
        plain = await cluster.start(plain.id)
        member = next(node for id, node in cluster.nodes.items() if id != plain.id)
        await eventually(lambda: len(plain.status().unreachable) == 2)
        assert await member.propose(b"x") == 1
        assert cluster.machines[plain.id].commands == []
