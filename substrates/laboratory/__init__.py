"""Systems that live outside the simulation: machines, and programs of others."""
