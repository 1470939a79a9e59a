"""A backbone, pooling and a head: what encoders and decoders share."""
