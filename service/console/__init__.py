"""The console: what the person who runs Callboard looks at, and mends things with. Rendered here, no build step."""
