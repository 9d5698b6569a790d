"""objgraph: counts of the objects that the collector tracks, no bytes."""
import objgraph
objgraph.most_common_types(limit=20)
