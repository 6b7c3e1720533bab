// Package images has every image and chart that a lab runs on, and the one node image
// that holds them all, so that nothing has to be loaded into a cluster. It is the door
// to the rooms below it, which know what images are made of, and how.
//
// It refuses to know what a lab looks like: it is asked for the Set, and gives
// one, from what is there, from an archive, from registries, or by building it
// out of Go modules and Debian packages.
package images

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
	"github.com/fedlab-dev/fedlab/lab/images/store"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// What callers know of the rooms.
type (
	// Store keeps what was made, in a folder.
	Store = store.Store
	// Image is one image that is in every node before it boots.
	Image = recipe.Image
	// Component is something that runs in a lab, and its version.
	Component = recipe.Component
	// Source is where a set may come from.
	Source = recipe.Source
	// Kind says what an [Entry] is.
	Kind = recipe.Kind
	// MissingError says that something is not there and that the source is not one
	// that makes it.
	MissingError = recipe.MissingError
	// SourceError says that an archive or a registry did not give what was asked
	// for; another source may.
	SourceError = recipe.SourceError
)

// The sources, as in package recipe.
const (
	Auto    = recipe.Auto
	Present = recipe.Present
	Archive = recipe.Archive
	Pull    = recipe.Pull
	Build   = recipe.Build
)

// The kinds that callers ask for.
const (
	NodeImage  = recipe.NodeImage
	Ingredient = recipe.Ingredient
)

// References by which charts name what they run.
const (
	SPIREServer            = recipe.SPIREServer
	SPIREAgent             = recipe.SPIREAgent
	SPIREControllerManager = recipe.SPIREControllerManager
	MetalLBController      = recipe.MetalLBController
	MetalLBSpeaker         = recipe.MetalLBSpeaker
)

// OpenStore returns the store in root. It makes the folder, and refuses one in which
// other users may write.
func OpenStore(root string) (*Store, error) { return store.Open(root) }

// Sources returns all sources.
func Sources() []Source { return recipe.Sources() }

// ParseSource reads the name of a source; no name is Auto.
func ParseSource(name string) (Source, error) { return recipe.ParseSource(name) }

// Pulled lists the upstream images that source Pull fetches: kind's own node image
// first, then those that it lacks.
func Pulled() []Image { return recipe.Pulled() }

// Optional lists the optional programs: those of others that only some labs run. Their
// images are made for these, and are in no node image.
func Optional() []string {
	var names []string
	for _, o := range recipe.Optionals() {
		names = append(names, o.Name)
	}
	return names
}

// Components returns what the images of a lab hold, with the versions that the
// catalogue pins.
func Components() []Component { return recipe.Components() }

// Library gives out what labs run on, and makes what is not there yet.
type Library struct {
	Store  *Store
	Engine *docker.Client
	// Code is fedlab's own source, from which the demo programs Demos are
	// built.
	Code  fs.FS
	Demos []string
	// Source is where what is not there may come from; the zero value is Auto.
	Source Source
	// Archive is the file to load from; it may be empty with Auto.
	Archive string
	// Mirror is a registry that has the upstream images under the same names:
	// a host, with a port and a folder where it needs them
	// ("mirror.example:5000/upstream"). Empty, each image comes from where its
	// reference says. Plain HTTP is spoken to loopback and private addresses
	// only.
	Mirror string
	// KindNode replaces the node image that kind was published with, by
	// NAME:TAG or NAME:TAG@DIGEST; empty, it is kind's own, of which the digest is
	// known.
	KindNode string
	// Version says which fedlab this is; archives have it.
	Version string
	// Observe is told what is being made; it may be nil.
	Observe func(plan.Event)
	// Say is told, in one line, why a source was not taken; it may be nil.
	Say func(string)
}

// Set names all that labs of one fedlab version run on.
type Set struct {
	// NodeImage is the Docker image of a cluster's node. Every image is in it but
	// those of the demo programs that stand on nothing: LoadDemo brings them, and
	// those that have changed since. It is empty where Node was not asked for.
	NodeImage string
	// DefaultCNI reports that the node image brings a network of its own that
	// kind installs.
	DefaultCNI bool
	// Demos gives the reference of the image of each demo program, and of each optional
	// program.
	Demos map[string]string
	// MetalLBChart is the folder with MetalLB's chart.
	MetalLBChart string
	// CRDs are the controller manager's CustomResourceDefinitions as YAML.
	CRDs [][]byte
}

// Need says how much of a set is asked for; needs are put together with |.
type Need int

const (
	// Parts is everything that clusters which run already may need: charts and
	// the demo programs.
	Parts Need = 0
	// Node is the node image as well, for clusters that are to be made.
	Node Need = 1
	// Foundations are what the images of some demo programs stand on as well, for
	// callers that need such an image outside the node image.
	Foundations Need = 2
	// Hosts are the images of SPIRE's programs for hosts outside Kubernetes as well.
	Hosts Need = 4
	// All is what an archive holds, besides the optional programs that are there.
	All = Node | Foundations | Hosts
)

// Ensure makes what is missing, side by side where it can, and returns the set. Of the
// optional programs it makes those that are named. Killed at any moment, the next Ensure
// takes up what was finished, and of what was being compiled, what the Go build cache has.
//
// The error wraps a [*MissingError] when the source is Present and something is
// not there, and a [*SourceError] when the archive or the registry that was
// asked for does not give it.
func (l *Library) Ensure(ctx context.Context, need Need, optional ...string) (Set, error) {
	return with(l, func(s stock) (Set, error) { return s.ensure(ctx, need, optional...) })
}

// LoadDemo gives a running node, by its container, the image of a demo program or of
// an optional one, unless it has it already; it reports whether it had to. What the image
// is made of is made where it is not there.
func (l *Library) LoadDemo(ctx context.Context, node, name string) (bool, error) {
	return with(l, func(s stock) (bool, error) { return s.loadDemo(ctx, node, name) })
}

// DemoInEngine gives the Docker engine the image of a demo program or of an optional one,
// for a container next to the clusters, unless it has it already; it returns the image's
// name, which changes with the program. What is missing is made, as by Ensure.
func (l *Library) DemoInEngine(ctx context.Context, name string) (string, error) {
	return with(l, func(s stock) (string, error) { return s.demoInEngine(ctx, name) })
}

// HostInEngine gives the Docker engine SPIREServer or SPIREAgent, for a container of a
// host outside Kubernetes, unless it has it already; it returns the image's name there,
// which changes with its content. What is missing is made, as by Ensure.
func (l *Library) HostInEngine(ctx context.Context, reference string) (string, error) {
	return with(l, func(s stock) (string, error) { return s.hostInEngine(ctx, reference) })
}

// Program returns where a program lies that was built for the images, such as
// spire-server. It runs on Linux. The error is a [*MissingError] where it was
// not built, as after a pull; but an optional program is built where the source allows
// that.
func (l *Library) Program(ctx context.Context, name string) (string, error) {
	return with(l, func(s stock) (string, error) { return s.program(ctx, name) })
}

// List tells what a set consists of, and of each thing whether it is there. It
// makes and fetches nothing. Ingredients are those of the node image that is
// there, or else of the one that would be built.
func (l *Library) List(ctx context.Context) ([]Entry, error) {
	return with(l, func(s stock) ([]Entry, error) { return s.list(ctx) })
}

// Work looks at what is missing and where Ensure would take it from; it makes
// and fetches nothing. With source Auto it asks the registry for each image, as
// Ensure does, and says in a line why the answer was no. Where Docker does not
// answer, the node image counts as missing. What an archive promises is not
// looked into.
func (l *Library) Work(ctx context.Context, need Need) (Work, error) {
	return with(l, func(s stock) (Work, error) { return s.work(ctx, need) })
}

// Prune removes the artifacts and Docker images that this fedlab has no use
// for, both pulled and built ones, and what killed builds of this store left.
// What a container uses stays, and what is being made just now.
func (l *Library) Prune(ctx context.Context) (Pruned, error) {
	return with(l, func(s stock) (Pruned, error) { return s.prune(ctx) })
}

// Save writes all that a machine without a network needs for labs to one
// archive: the node image, charts, CustomResourceDefinitions, the demo programs,
// SPIRE's programs for hosts outside Kubernetes, and those optional programs that are
// there. The error wraps a [*MissingError] where another part is not there; Save makes
// nothing.
//
// While it runs the node image lies in the store a second time.
func (l *Library) Save(ctx context.Context, w io.Writer) error {
	s, err := l.open()
	if err == nil {
		err = s.save(ctx, w)
	}
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// Load takes what Save has written; afterwards, Ensure has nothing to make but optional
// programs that were not there when it was saved.
// Each part is checked against its checksum, and only when all of them are good
// does anything get its name. The error wraps a [*ForeignError] when the
// archive is another fedlab's.
//
// The checksums are in the archive itself: they tell damage, not forgery.
func (l *Library) Load(ctx context.Context, archive io.Reader) error {
	s, err := l.open()
	if err == nil {
		err = s.load(ctx, archive)
	}
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	return nil
}
