// Package cli makes a command-line program of an App, with Celery's commands,
// flags and environment. The user's own main is the program:
//
//	func main() {
//		app := lovage.New("proj", lovage.Config{})
//		lovage.Func(app, "proj.add", add)
//		cli.Main(app)
//	}
//
// gives ./proj worker, call, result, inspect, control, status, purge, dead, queues, tasks, report
// and version. [Worker], [Command] and [Flags] add to it.
//
// # Configuration
//
// Later wins: the Config given to lovage.New, the file of --config (or
// LOVAGE_CONFIG), the environment (CELERY_BROKER_URL and the like; BROKER_URL
// and RESULT_BACKEND as Celery's own command line has them, weakest), the flags
// -b and --result-backend, and name=value words after the worker's flags.
// NO_COLOR and TERM=dumb switch colours off. Anything noteworthy in it is a
// warning in the log.
//
// # Logging
//
// The worker logs in Celery's format (worker_log_format, and
// worker_task_log_format for what a run logs by its context or by
// [lovage.Request.Log]), or as JSON lines with --json. Its level is WARNING
// unless -l says otherwise; that it is ready is told in any case, unless --quiet
// or --json. The log is the App's, if New was given none, and with
// worker_hijack_root_logger, which is the default, it becomes slog's default in
// a process that [Main] runs. Other commands log warnings alone.
//
// # Exit codes
//
//	0    done; for call --wait and result: the task succeeded
//	1    it did not work: the message on standard error says what and why; also
//	     a task that failed, a worker that was stopped cold, and a command that
//	     all workers refused
//	2    wrong usage: unknown command or flag, bad value
//	69   not available: no worker answered, no result yet, the broker or the
//	     result store cannot be reached
//	75   the worker stopped since too many tasks run on past their hard time limit
//	     (--stuck-limit): start it anew
//	130  interrupted from the keyboard
//
// Results go to standard output, everything else to standard error. Commands
// that print data print it as one JSON document with --json.
package cli
