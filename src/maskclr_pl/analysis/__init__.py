"""Analysis of trained models: attention, confusion, features, cost, memory, figures."""
