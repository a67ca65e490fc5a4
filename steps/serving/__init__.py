"""The served model: on this machine and on a cluster, its adapters changed while it answers."""
