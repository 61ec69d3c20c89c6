"""From a model folder to one that also serves without torch: graphs, INT8, parity gate, drift reference."""
