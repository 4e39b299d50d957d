"""What a trained model attends to, confuses, costs and needs."""
