"""How one customizer acts on a guest, through a communicator."""
