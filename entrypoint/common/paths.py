"""Every path, under one root that tests can move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # programs that must be small need the paths alone
    from entrypoint.common.names import Domain


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
    def waiting(self) -> Path:
        """The messages of the queue, a file each."""
        return self.queue / "queue"

    @property
    def parked(self) -> Path:
        """Messages of the queue that do not fit into memory; see services/parking.py."""
        return self.queue / "queue.parked"

    @property
    def domaininfo(self) -> Path:
        """What chasquid remembers of the TLS of other domains, a file each."""
        return self.queue / "domaininfo"

    @property
    def mail(self) -> Path:
        return self.data / "mail"

    @property
    def policy(self) -> Path:
        """What the policy service remembers: what each login sent, who is paused."""
        return self.data / "policy"

    @property
    def strangers(self) -> Path:
        """The holder's: who logged in from where, and who is blocked."""
        return self.policy / "strangers.json"

    @property
    def receivers(self) -> Path:
        """The gate's: how many connections each operator takes at once."""
        return self.policy / "receivers.json"

    @property
    def events(self) -> Path:
        """The store of events."""
        return self.data / "events"

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
        """MX hosts last seen for domains that receive elsewhere."""
        return self.state / "mx.json"

    @property
    def selectors(self) -> Path:
        """Every DKIM selector that a key of a domain's ever had."""
        return self.state / "selectors.json"

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
    def created(self) -> Path:
        """When each credential was made."""
        return self.state / "credentials.json"

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
    def sessions_socket(self) -> Path:
        """Where services ask the holder about connections: see services/connections.py."""
        return self.run / "sessions.sock"

    @property
    def post_data(self) -> Path:
        """chasquid's hook, in its configuration directory: a link into the image."""
        return self.chasquid / "hooks/post-data"

    @property
    def policy_rules(self) -> Path:
        """Who may send as whom, for the policy service."""
        return self.run / "policy.json"

    @property
    def policy_socket(self) -> Path:
        """Where the hook asks."""
        return self.run / "policy.sock"

    @property
    def policy_door(self) -> Path:
        """Where tambo's verbs ask."""
        return self.run / "policy-control.sock"

    @property
    def auth(self) -> Path:
        """What the auth service may read, in a folder that it may enter."""
        return self.run / "auth"

    @property
    def passwords(self) -> Path:
        """How chosen passwords are stored, for the auth service."""
        return self.auth / "passwords.json"

    @property
    def auth_questions(self) -> Path:
        """Where the auth service asks the holder, as others do at `sessions_socket`."""
        return self.auth / "holder.sock"

    @property
    def auth_socket(self) -> Path:
        """Where chasquid has passwords checked (dovecot_client_path)."""
        return self.run / "auth.sock"

    @property
    def auth_users(self) -> Path:
        """Where chasquid asks whether somebody exists (dovecot_userdb_path)."""
        return self.run / "auth-users.sock"

    @property
    def auth_door(self) -> Path:
        """Where tambo's verbs ask the auth service."""
        return self.run / "auth-control.sock"

    @property
    def gate_socket(self) -> Path:
        """Where the holder and the policy service ask the gate."""
        return self.run / "gate.sock"

    @property
    def gate_door(self) -> Path:
        """Where tambo's verbs ask the gate."""
        return self.run / "gate-control.sock"

    @property
    def recorder_socket(self) -> Path:
        """Where the holder hands events to the recorder."""
        return self.run / "recorder.sock"

    @property
    def programs(self) -> Path:
        """The state of each supervised program, a JSON object: PID 1's."""
        return self.run / "programs.json"

    @property
    def changes(self) -> Path:
        """What chasquid has not been told yet of the files that it reads."""
        return self.run / "changes"

    @property
    def problems(self) -> Path:
        """What the health check reports: a JSON list of texts, the keeper's."""
        return self.run / "problems.json"

    @property
    def findings(self) -> Path:
        """What is wrong as the keeper sees it, also what health does not mind: for `status`."""
        return self.run / "findings.json"

    @property
    def ca_bundle(self) -> Path:
        """The public roots and those of ACME_CA_BUNDLE, in one file."""
        return self.run / "ca-bundle.pem"

    @property
    def temporary(self) -> Path:
        """Log-ins that a verb made for itself, for a moment; see entrypoint.accounts.temporary."""
        return self.run / "temporary"

    @property
    def challenges(self) -> Path:
        """What the HTTP-01 responder serves."""
        return self.run / "acme-challenge"
