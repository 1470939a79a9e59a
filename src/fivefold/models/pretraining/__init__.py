"""Language modelling on texts without labels."""
