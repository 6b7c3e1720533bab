package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (c *cmd) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			version, toolchain := versionText(), runtime.Version()
			if c.output == "json" {
				return c.json("Version", map[string]any{"version": version, "go": toolchain})
			}
			_, _ = fmt.Fprintf(c.Out, "fedlab %s (%s)\n", version, toolchain)
			return nil
		},
	}
}

// versionText returns which fedlab this is.
func versionText() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
