"""The embedded dataset: procedural road scenes with exact masks, under seven conditions."""
