"""From Kubernetes objects to the table: read, check, translate, watch."""
