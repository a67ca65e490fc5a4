"""The model server: its command, its process, its middleware, and the client that checks it."""
