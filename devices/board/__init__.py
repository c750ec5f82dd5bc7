"""What a board says of itself: processor, clocks, temperature, throttling, power. A reading that fails is "absent"."""
