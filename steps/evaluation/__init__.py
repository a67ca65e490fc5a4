"""How an adapter is judged: losses, answers, tasks, and the rules of the gate."""
