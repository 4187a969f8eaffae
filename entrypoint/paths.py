"""Every path, under one root that tests can move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from entrypoint.names import Domain


@dataclass(frozen=True)
class Paths:
    """`data` survives (the volume), `run` does not (a tmpfs), `lib` is in the image."""

    root: Path = Path("/")

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def run(self) -> Path:
        return self.root / "run/tambo"

    @property
    def lib(self) -> Path:
        return self.root / "usr/lib/tambo"

    # the volume, the owner's part

    @property
    def domains(self) -> Path:
        return self.data / "domains"

    def domain(self, domain: Domain) -> Path:
        return self.domains / domain

    def pending(self, domain: Domain) -> Path:
        """DKIM keys that are made, but not shown by DNS yet."""
        return self.domain(domain) / "dkim/pending"

    def retired(self, domain: Domain) -> Path:
        """DKIM keys that sign no more, whose records must still stand for a while."""
        return self.domain(domain) / "dkim/retired"

    @property
    def certs(self) -> Path:
        return self.data / "certs"

    @property
    def acme(self) -> Path:
        """acme.sh's configuration homes, one a domain."""
        return self.data / "acme"

    @property
    def reload(self) -> Path:
        """Executables of the owner's, run after a certificate has changed."""
        return self.data / "reload"

    @property
    def backup(self) -> Path:
        """The git repository that is pushed; bare."""
        return self.data / "backup"

    @property
    def replaced(self) -> Path:
        """What restore --replace put aside."""
        return self.data / "replaced"

    @property
    def restoring(self) -> Path:
        """What a restore is preparing: worth nothing until it is renamed."""
        return self.data / ".restore.new"

    @property
    def restored(self) -> Path:
        """What a restore has prepared whole: from here on it is completed, whatever happens."""
        return self.data / ".restore.ready"

    @property
    def restored_env(self) -> Path:
        """The settings that a restore found."""
        return self.data / "restored.env"

    # the volume, chasquid's part

    @property
    def queue(self) -> Path:
        return self.data / "chasquid"

    @property
    def mail(self) -> Path:
        return self.data / "mail"

    # the volume, tambo's own memory

    @property
    def state(self) -> Path:
        return self.data / "state"

    @property
    def good(self) -> Path:
        """Last good copies of files that people edit."""
        return self.state / "good"

    @property
    def mx(self) -> Path:
        """Mail exchangers last seen for domains that receive elsewhere."""
        return self.state / "mx.json"

    @property
    def issues(self) -> Path:
        """What is remembered of each certificate's issuing: next try, last error."""
        return self.state / "certs"

    @property
    def reloads(self) -> Path:
        """Reload executables that have yet to run, or to succeed."""
        return self.state / "reload.json"

    @property
    def doctor(self) -> Path:
        """What the doctor found the last time, and when."""
        return self.state / "doctor.json"

    @property
    def backup_memory(self) -> Path:
        """What is known of the backup: digests, last push, last check."""
        return self.state / "backup.json"

    @property
    def backup_scratch(self) -> Path:
        """Where a check fetches to."""
        return self.state / "backup-check"

    @property
    def backup_lock(self) -> Path:
        return self.state / "backup.lock"

    @property
    def acme_lock(self) -> Path:
        return self.state / "acme.lock"

    @property
    def instance_lock(self) -> Path:
        return self.state / "instance.lock"

    @property
    def edit_lock(self) -> Path:
        return self.state / "edit.lock"

    # the tmpfs

    @property
    def chasquid(self) -> Path:
        """chasquid's configuration directory: rendered, never edited."""
        return self.run / "chasquid"

    @property
    def holder_socket(self) -> Path:
        return self.run / "holder.sock"

    @property
    def problems(self) -> Path:
        """What the health check reports: a JSON list of texts, the keeper's."""
        return self.run / "problems.json"

    @property
    def ca_bundle(self) -> Path:
        """The public roots and those of ACME_CA_BUNDLE, in one file."""
        return self.run / "ca-bundle.pem"

    @property
    def challenges(self) -> Path:
        """What the HTTP-01 responder serves."""
        return self.run / "acme-challenge"
