"""What the agent can do, through the operations it is handed."""
