"""`mecellem prepare run|status|report`: a corpus from raw sources to tokens, stage by stage."""
