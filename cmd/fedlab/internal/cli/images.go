package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/local"
)

func (c *cmd) sourceFlags(command *cobra.Command) *cobra.Command {
	flags := command.Flags()
	flags.StringVar(&c.source, "source", os.Getenv("FEDLAB_SOURCE"), "where images come from that are not there: auto, present, archive, pull or build; $FEDLAB_SOURCE is the default")
	flags.StringVar(&c.archive, "archive", os.Getenv("FEDLAB_ARCHIVE"), "an archive of 'fedlab images save' to take images from; $FEDLAB_ARCHIVE is the default")
	flags.StringVar(&c.mirror, "mirror", os.Getenv("FEDLAB_MIRROR"), "a registry that has the upstream images under their own names; $FEDLAB_MIRROR is the default")
	flags.StringVar(&c.kindNode, "kind-node", os.Getenv("FEDLAB_KIND_NODE"), "a node image to pull in place of kind's own, as NAME:TAG or NAME:TAG@DIGEST; $FEDLAB_KIND_NODE is the default")
	completes(command, "source", sources)
	before := command.PreRunE
	command.PreRunE = func(cmd *cobra.Command, args []string) error {
		if _, err := images.ParseSource(c.source); err != nil {
			return usage(cmd, err)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
	return command
}

func sources() []string {
	return each(images.Sources(), func(s images.Source) string { return string(s) })
}

func (c *cmd) options() (local.Options, error) {
	source, err := images.ParseSource(c.source)
	return local.Options{Source: source, Archive: c.archive, Mirror: c.mirror, KindNode: c.kindNode, Version: versionText(), Say: func(line string) { c.printf("%s\n", line) }}, err
}

func (c *cmd) images() *cobra.Command {
	command := &cobra.Command{
		Use:     "images",
		GroupID: "machine",
		Short:   "Build, list, save, load and remove the images of labs",
		Long: `A lab needs one node image with Kubernetes, SPIRE and MetalLB, and the images of
demo programs. fedlab takes missing images from an archive if one is named, pulls
them if a registry answers, or else builds them from Go modules and Debian packages.
Once the images are there, labs need no registry and no network.`,
	}
	command.AddCommand(c.imagesList(), c.imagesBuild(), c.imagesSave(), c.imagesLoad(), c.imagesPrune(), c.imagesPath())
	return command
}

func (c *cmd) imagesBuild() *cobra.Command {
	return c.sourceFlags(&cobra.Command{
		Use:   "build",
		Short: "Build or fetch every missing image",
		Long: `build makes what is missing. You can stop it at any moment: the next build keeps what
was finished, and whatever the Go build cache has of the rest. Of the optional
programs, such as ghostunnel, it makes those that the lab runs: name the lab with
--lab.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.topology()
			if err != nil {
				return err
			}
			return c.withDriver(cmd, func(d *local.Driver, p *progress) error {
				set, err := d.Library.Ensure(cmd.Context(), images.All, t.OptionalPrograms()...)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("ImageSet", map[string]any{"nodeImage": set.NodeImage, "demos": set.Demos})
				}
				c.printf("all images are there: %s (%s)\n", set.NodeImage, brief(time.Since(p.began)))
				return nil
			})
		},
	})
}

func (c *cmd) imagesList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all images, charts and programs, with origin and size",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				entries, err := d.Library.List(cmd.Context())
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("ImageList", map[string]any{"entries": entries})
				}
				return table(c.Out, "KIND\tNAME\tREFERENCE\tTHERE\tSIZE\tKEY", entries, func(e images.Entry) []string {
					there := "no"
					if e.Present {
						there = string(e.From)
					}
					return []string{string(e.Kind), e.Name, orDash(e.Reference), there, mebibytes(e.Size), orDash(e.Key)}
				})
			})
		},
	}
}

func mebibytes(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

func (c *cmd) imagesSave() *cobra.Command {
	return &cobra.Command{
		Use:   "save FILE",
		Short: "Save all that labs need to one archive, for a machine without network",
		Long: `save writes the node image, charts and demo programs to FILE, and those optional
programs that are there. On another machine 'fedlab images load FILE' loads them, and
labs then need no network. Before, make what is missing with 'fedlab images build'.`,
		Args: oneArg("the archive's file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := replaceable(args[0]); err != nil {
				return usage(cmd, err)
			}
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				size, err := writeWhole(args[0], func(w io.Writer) error { return d.Library.Save(cmd.Context(), w) })
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("ImageArchive", map[string]any{"file": args[0], "size": size})
				}
				_, _ = fmt.Fprintf(c.Out, "wrote %s (%s)\n", args[0], mebibytes(size))
				return nil
			})
		},
	}
}

func (c *cmd) imagesLoad() *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE",
		Short: "Load all that labs need from an archive of 'fedlab images save'",
		Args:  oneArg("the archive's file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) (err error) {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("load images: %w", err)
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				if err := d.Library.Load(cmd.Context(), f); err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("ImageArchive", map[string]any{"file": args[0]})
				}
				_, _ = fmt.Fprintf(c.Out, "loaded %s; 'fedlab up' needs no network now\n", args[0])
				return nil
			})
		},
	}
}

func (c *cmd) imagesPrune() *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "Remove images and builds that this fedlab does not need",
		Long: `prune removes what other versions of fedlab or of the demo programs have left:
builds in the cache folder and images in Docker. What a container uses stays.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				pruned, err := d.Library.Prune(cmd.Context())
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("Pruned", map[string]any{"removed": append([]string{}, pruned.Names...), "bytes": pruned.Bytes})
				}
				for _, name := range pruned.Names {
					_, _ = fmt.Fprintln(c.Out, name)
				}
				if len(pruned.Names) == 0 {
					c.printf("everything that is there is needed\n")
					return nil
				}
				c.printf("removed %s, which gave back %s or more\n", count(len(pruned.Names), "thing"), mebibytes(pruned.Bytes))
				return nil
			})
		},
	}
}

func (c *cmd) imagesPath() *cobra.Command {
	return &cobra.Command{
		Use:   "path PROGRAM",
		Short: "Print the path of a program that was built for the images, such as spire-server",
		Long: `path prints where a program lies that was built for the images. An optional program,
such as pebble, is built where it is not there.`,
		Args: oneArg("a program's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				path, err := d.Library.Program(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("Program", map[string]any{"path": path})
				}
				_, _ = fmt.Fprintln(c.Out, path)
				return nil
			})
		},
	}
}
