"""Where observations can go: one module for each way of writing a batch (`gateway.writer.Write`)."""
