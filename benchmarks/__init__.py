"""Programs that measure, on real images and real clocks, what the README promises."""
