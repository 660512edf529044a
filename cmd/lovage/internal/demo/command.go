package demo

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// workerName is the hidden command that a worker process runs.
const workerName = "demo-worker"

// Command is "lovage demo".
func Command() *cobra.Command {
	opts := Options{}
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "See it run: workers, real input, a kill -9, task classes.",
		Long: "Counts every .go file below DIR (default: the Go installation) on worker processes that share a\n" +
			"temporary store, kills one half-way, proves that each file was counted exactly once, and shows\n" +
			"what task classes do. Takes less than a minute and leaves nothing behind.",
		Args: cobra.MaximumNArgs(1),
		// The demo brings its own configuration.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				opts.Dir = args[0]
			}
			path := strings.Fields(cmd.CommandPath())[1:] // of the program that this is
			opts.Worker = append(path, workerName)
			cmd.SilenceUsage = true
			return Run(cmd.Context(), opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&opts.Broker, "broker", "", "Where messages travel; default: a temporary SQLite file.")
	fs.StringVar(&opts.Backend, "backend", "", "Where results are stored; default: the broker, rpc:// with RabbitMQ.")
	fs.IntVar(&opts.Workers, "workers", 2, "Worker processes, at least 2: one is killed.")
	fs.IntVar(&opts.Concurrency, "concurrency", 0, "Runs at once in each; default: the CPUs.")
	fs.DurationVar(&opts.Pause, "pause", 0, "How long counting a file takes at least, to see more of a small directory.")
	fs.BoolVar(&opts.JSON, "json", false, "Print a report as JSON instead.")
	fs.BoolVar(&opts.Keep, "keep", false, "Keep the store and the workers' logs.")
	cmd.AddCommand(workerCommand())
	return cmd
}

func workerCommand() *cobra.Command {
	c := workerConfig{}
	cmd := &cobra.Command{
		Use:    workerName,
		Short:  "A worker process of the demo.",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return serve(cmd.Context(), c, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.name, "name", "worker", "Node name.")
	fs.StringVar(&c.broker, "broker", "", "Broker URL.")
	fs.StringVar(&c.backend, "backend", "", "Result store URL.")
	fs.StringVar(&c.dir, "dir", "", "Directory to count in.")
	fs.StringArrayVar(&c.queues, "queue", nil, "Queue to consume; may be repeated.")
	fs.IntVar(&c.concurrency, "concurrency", 1, "Runs at once.")
	fs.DurationVar(&c.pause, "pause", time.Duration(0), "Least time of a count.")
	return cmd
}
