package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (c *cmd) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			version, toolchain := "unknown", "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				version, toolchain = info.Main.Version, info.GoVersion
			}
			if c.output == "json" {
				return c.json("Version", map[string]any{"version": version, "go": toolchain})
			}
			_, _ = fmt.Fprintf(c.Out, "fedlab %s (%s)\n", version, toolchain)
			return nil
		},
	}
}
