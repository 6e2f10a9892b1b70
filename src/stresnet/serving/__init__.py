"""Recognition as a service over HTTP: uploads from strangers, decoded in processes of their own."""
