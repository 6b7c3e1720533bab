package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
)

func (c *cmd) config() *cobra.Command {
	command := &cobra.Command{
		Use:     "config",
		GroupID: "file",
		Short:   "Check and print lab files",
	}
	command.AddCommand(
		&cobra.Command{
			Use:   "validate",
			Short: "Check a lab file, and list every problem in it",
			Args:  noArgsButLab,
			RunE: func(*cobra.Command, []string) error {
				f, err := c.open()
				problems := config.Problems{}
				if err != nil && (!errors.As(err, &problems) || c.output != "json") {
					return err
				}
				if c.output == "json" {
					result := map[string]any{"source": c.lab, "lab": f.Topology.Name, "valid": err == nil, "problems": problems}
					return errors.Join(c.json("Validation", result), err)
				}
				_, _ = fmt.Fprintf(c.Out, "%s: lab %s is valid\n", f.Source, f.Topology.Name)
				return nil
			},
		},
		&cobra.Command{
			Use:   "defaults",
			Short: "Print a lab file with every default filled in",
			Args:  noArgsButLab,
			RunE: func(*cobra.Command, []string) error {
				f, err := c.open()
				if err != nil {
					return err
				}
				var data []byte
				if c.output == "json" {
					data, err = json.MarshalIndent(f.Lab, "", "  ")
					data = append(data, '\n')
				} else {
					data, err = config.Marshal(f.Lab)
				}
				if err == nil {
					_, err = c.Out.Write(data)
				}
				return err
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON schema of lab files, for editors",
			Args:  noArgs,
			RunE: func(*cobra.Command, []string) error {
				out := json.NewEncoder(c.Out)
				out.SetIndent("", "  ")
				return out.Encode(config.For(demo.Apps()).Schema())
			},
		},
	)
	return command
}

func (c *cmd) init() *cobra.Command {
	var preset string
	command := &cobra.Command{
		Use:     "init [FILE]",
		GroupID: "file",
		Short:   "Write a commented lab file to start from",
		Long: `init writes a lab file to FILE, or to lab.yaml where no FILE is given. It never
changes a file that exists. With - it prints the lab file.`,
		Args: atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			path := "lab.yaml"
			if len(args) == 1 {
				path = args[0]
			}
			data, err := config.Init(preset)
			if err != nil {
				return usage(cmd, err)
			}
			if path == "-" {
				_, err = c.Out.Write(data)
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return usage(cmd, fmt.Errorf("%s exists: name another file, or remove it", path))
			}
			if err != nil {
				return fmt.Errorf("write lab file: %w", err)
			}
			_, err = f.Write(data)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("write lab file: %w", err)
			}
			c.printf("wrote %s; 'fedlab up --lab %s' brings it up\n", path, path)
			return nil
		},
	}
	command.Flags().StringVar(&preset, "preset", config.DefaultPreset, "the preset to start from: "+listing(config.Presets()))
	completes(command, "preset", config.Presets)
	return command
}
