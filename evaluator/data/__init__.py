"""What a corpus is made of: where text and tokens come from, how they are split, coded and kept."""
