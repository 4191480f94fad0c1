"""The catalogue's tables in SQLAlchemy Core. Every change needs a migration in pipelines/catalogue/migrations.

Times are UTC and time-zone aware (`Instant`). JSON columns hold small dictionaries.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """A point in time, always UTC and aware in Python; SQLite stores no zone, so it is restored on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Convert to UTC; refuse a naive datetime."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: use an aware datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Restore the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


_Id = BigInteger().with_variant(Integer, "sqlite")

samples = Table(
    "samples",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("format", String(16), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source_key", Text, nullable=False),
    Column("group_key", Text, nullable=False),
    Column("acquired_at", Instant),
    Column("ingested_at", Instant, nullable=False, default=now),
    Column("ingest_run", Text),
    Column("descriptors", JSON, nullable=False, default=dict),
    # Bits of a sample in the file, and the greatest sample of an image of more than eight; null in rows of before.
    Column("sample_bits", Integer),
    Column("sample_peak", Float(precision=53)),
    # The project's bit depth when the descriptors of such an image were measured; null: the image's own.
    Column("described_bits", Integer),
    Column("withdrawn_at", Instant),
    Column("withdrawn_reason", Text),
    # Dataset version of the first completed training that used the sample; null is the state `temp`.
    Column("trained_version", String(63)),
    # When the sample counted towards a training triggered by `watch`; it never triggers another.
    Column("fired_at", Instant),
    UniqueConstraint("project", "sha256"),
    Index("ix_samples_project_group", "project", "group_key"),
    Index("ix_samples_project_waiting", "project", "trained_version", "fired_at"),
    Index("ix_samples_project_source", "project", "source_key"),
    Index("ix_samples_project_ingested_at", "project", "ingested_at"),
)

# Perceptual hashes of the images of classifiers, by which copies of one photograph are found.
image_hashes = Table(
    "image_hashes",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("hash", String(16), nullable=False),  # 64 bits, hexadecimal
    # Its bits in five parts: see pipelines/catalogue/image_hashes.py.
    *(Column(f"band_{number}", Integer, nullable=False) for number in range(5)),
    *(Index(f"ix_image_hashes_band_{number}", "project", f"band_{number}") for number in range(5)),
)

groups = Table(
    "groups",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("group_key", Text, primary_key=True),
    Column("side", String(16), nullable=False),  # training | validation | test
    Column("origin", String(16), nullable=False),  # imported | asked | hashed
    Column("created_at", Instant, nullable=False, default=now),
)

annotations = Table(
    "annotations",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("label", Text, nullable=False),  # good | anomaly; of other tasks a class, or `damage`, `none`
    Column("type", Text),
    Column("mask_key", Text),
    Column(
        "content", JSON(none_as_null=True)
    ),  # task-specific annotation beyond label, type and mask: regions, boxes, rows
    Column("origin", String(16), nullable=False),  # inbox | decision | serving | proposed
    Column("author", Text),
    Column("source_key", Text),
    Column("created_at", Instant, nullable=False, default=now),
    Index("ix_annotations_project_sha256", "project", "sha256"),
    Index("ix_annotations_project_origin", "project", "origin"),
)

rejections = Table(
    "rejections",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("source_key", Text, nullable=False),
    Column("etag", String(80)),
    Column("reason", Text, nullable=False),
    Column("rejected_key", Text),
    Column("rejected_at", Instant, nullable=False, default=now),
    Column("ingest_run", Text),
    Index("ix_rejections_project_run", "project", "ingest_run"),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("version_id", String(63), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("manifest_key", Text, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("bits", Integer),  # bit depth that its images are scaled by; null: each image's own
    Column("created_at", Instant, nullable=False, default=now),
)

trainings = Table(
    "trainings",
    metadata,
    Column("training_id", String(63), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("kind", String(16), nullable=False, default="retrain"),  # retrain | evaluate
    Column("version_id", String(63), nullable=False),
    Column("params_digest", String(64), nullable=False),
    Column("params", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # running | completed | failed
    Column("dag_run_id", Text),
    Column("mlflow_run_id", String(64)),
    Column("champion_version", String(16)),  # version of the champion alias when the run started
    Column("model_version", String(16)),
    Column("promoted", Boolean),
    Column("progress", JSON),  # training progress of the network while it runs
    Column("result", JSON),
    Column("started_at", Instant, nullable=False, default=now),
    Column("finished_at", Instant),
    UniqueConstraint("project", "dag_run_id"),
    Index("ix_trainings_project_params", "project", "params_digest", "state"),
)

requests = Table(
    "requests",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("kind", String(16), nullable=False),  # retrain | evaluate
    Column("state", String(16), nullable=False, default="pending"),  # pending | claimed | done | failed
    Column("payload", JSON, nullable=False, default=dict),
    Column("created_by", Text),
    Column("sha256", String(64)),  # the sample sent along, if any
    Column("sample", JSON),  # and its state after ingest
    Column("created_at", Instant, nullable=False, default=now),
    Column("claimed_at", Instant),
    Column("started_at", Instant),  # when its run fixed its dataset; later requests need another run
    Column("dag_run_id", Text),
    Column("result", JSON),
    Column("finished_at", Instant),
    Index("ix_requests_project_state", "project", "state", "kind"),
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("request_id", String(64), nullable=False, unique=True),
    Column("project", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("model_version", String(16), nullable=False),
    Column("task", String(32), nullable=False, default="anomaly", server_default="anomaly"),
    # The first four hold the answer of the task `anomaly`. `answer` holds the typed answer of every task; it is null in
    # older rows of `anomaly`.
    Column("score", Float(53)),
    Column("threshold", Float(53)),
    Column("is_anomaly", Boolean),
    Column("verdict", String(16)),  # good | review | anomaly; null in rows older than the review threshold
    Column("answer", JSON),
    Column("latency_ms", Float(53), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("descriptors", JSON, nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # float32, little-endian
    Column("image_key", Text),
    Column("expires_at", Instant),
    Column("source", Text),
    Index("ix_predictions_project_created_at", "project", "created_at"),
    Index("ix_predictions_project_sha256", "project", "sha256"),
    Index("ix_predictions_expires_at", "expires_at"),
)

drift_reports = Table(
    "drift_reports",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("created_at", Instant, nullable=False, default=now),
    Column("dag_run_id", Text, nullable=False),
    Column("model_version", String(16)),
    Column("state", String(16), nullable=False),  # drift | no_drift | too_few | no_champion
    Column("changed", Boolean, nullable=False, default=False),
    Column("reference_n", Integer, nullable=False, default=0),
    Column("current_n", Integer, nullable=False, default=0),
    Column("results", JSON, nullable=False, default=dict),
    Column("report_key", Text),
    Column("mailed_at", Instant),
    Column("digest_sent_at", Instant),
    UniqueConstraint("project", "dag_run_id"),
    Index("ix_drift_reports_project_created_at", "project", "created_at"),
)

# Whether the champion of a classifier keeps the project's minimum of accuracy, one row a run that asked.
accuracy_checks = Table(
    "accuracy_checks",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("created_at", Instant, nullable=False, default=now),
    Column("dag_run_id", Text, nullable=False),
    Column("model_version", String(16), nullable=False),
    Column("version_id", String(63), nullable=False),  # dataset version of the test images
    Column("state", String(16), nullable=False),  # below | met
    Column("changed", Boolean, nullable=False, default=False),
    Column("results", JSON, nullable=False, default=dict),
    Column("mailed_at", Instant),
    UniqueConstraint("project", "dag_run_id"),
)

users = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("name_key", String(256), nullable=False, unique=True),  # the case-folded name: see users.name_key
    Column("password_hash", String(256), nullable=False),
    Column("role", String(16), nullable=False),  # user | administrator
    Column("disabled", Boolean, nullable=False, default=False),
    # Embedded in tokens; changing the password or disabling the account replaces it, which revokes them.
    Column("stamp", String(32), nullable=False),
    Column("created_at", Instant, nullable=False, default=now),
    Column("password_changed_at", Instant, nullable=False, default=now),
)

login_addresses = Table(
    "login_addresses",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("network", String(64), primary_key=True),  # an IPv4 address, or the /64 network of an IPv6 address
    # Ten bits that tell most wrong passwords, and what they are good for: see serving/auth/password_filter.py.
    Column("password_filter", String(32), nullable=False),
    Column("used_at", Instant, nullable=False, default=now),
    Index("ix_login_addresses_used_at", "used_at"),
)
