"""The addresses in the bucket are a contract: what an earlier version stored is found again."""

from datetime import UTC, datetime

from pipelines.storage import keys

DIGEST = "ab" * 32


def test_keys_are_those_that_earlier_versions_wrote():
    day = datetime(2026, 5, 1, 13, tzinfo=UTC)
    written = [
        keys.inbox("cells"),
        keys.rejected("cells", "good/7.png"),
        keys.ingest_run("cells", "manual__2026-05-01T13:00:00+00:00"),
        keys.sample("cells", DIGEST, "jpg"),
        keys.mask("cells", DIGEST),
        keys.served_image("cells", DIGEST, "png", day),
        keys.manifest("cells", "d1"),
        keys.pack("cells", "d1", 128, "tile", 2),
        keys.profile("cells", "d1"),
        keys.checkpoint("cells", "d1", "t1"),
        keys.package("cells", "d1", "t1"),
        keys.evaluation("cells", "d1", "t1"),
        keys.decision("cells", "d1", "t1"),
        keys.drift_report("cells", "d1", "2026-05-01"),
    ]
    assert written == [
        "cells/inbox/",
        "cells/rejected/good/7.png",
        "cells/ingest/manual__2026-05-01T13_00_00_00_00",
        f"cells/samples/ab/{DIGEST}.jpg",
        f"cells/samples/ab/{DIGEST}_mask.png",
        f"cells/served/2026-05-01/{DIGEST}.png",
        "cells/d1/dataset/manifest.parquet",
        "cells/d1/pack/128-tile-2",
        "cells/d1/profile/profile.html",
        "cells/d1/checkpoint/t1/state.npz",
        "cells/d1/model/t1",
        "cells/d1/evaluation/t1.json",
        "cells/d1/evaluation/t1_decision.json",
        "cells/d1/drift/2026-05-01.html",
    ]
    assert len(set(written)) == len(written)
