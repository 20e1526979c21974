//! Every fault that [`super::verify`] knows, in one table: code, severity, meaning, remedy.
//!
//! Codes are stable: scripts match on them. A code that is no longer raised stays here.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// lerobot refuses the dataset, fails on some of it, or gives something wrong without a word.
    Error,
    /// It loads, but something is odd, lost, or breaks a later step such as training or a merge.
    Warning,
    /// Worth knowing; nothing has to be done.
    Info,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $severity:ident $what:literal $remedy:literal;)+) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $what] $name,)+
        }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)+ }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

codes! {
    // The folder and its files.
    NotADataset "not-a-dataset" Error "the folder is no LeRobot dataset of a version that is known" "name the folder that holds meta/info.json, or convert the recording first";
    FileMissing "file-missing" Error "a file that the dataset needs is not there" "copy it from the source, or take its episodes out of the metadata";
    FileEmpty "file-empty" Error "a file has 0 bytes" "download or record it again; nothing is left to repair";
    LfsPointer "lfs-pointer" Error "a Git LFS pointer stands in place of the data" "run `git lfs install` and `git lfs pull` in the clone";
    HtmlPage "html-page" Error "an HTML page stands in place of the data" "download it again, signed in";
    ParquetCut "parquet-cut" Error "a parquet file has no footer: its writer was stopped" "record again or restore a copy; the other files stay usable";
    FileAlien "file-alien" Error "a file is not what its name says" "check what wrote it, or take it away";
    FileDamaged "file-damaged" Error "a file has the right ends and a damaged inside" "restore it from a copy";
    FileTooLarge "file-too-large" Error "a text file is too large to be what its name says" "check what wrote it";
    FileUnreadable "file-unreadable" Error "the system does not let the file be read" "check the rights of the file and the disk";
    JsonDamaged "json-damaged" Error "a file or line is no JSON object" "repair the line, or restore the file from a copy";
    JsonNotFinite "json-not-finite" Warning "NaN or infinity is written where JSON has no such thing" "write null, or compute the value again";
    StrayFile "stray-file" Warning "a file that nothing refers to" "take it out of the dataset";
    StrayData "stray-data-file" Error "a parquet file under data/ that no episode refers to: lerobot reads it as rows" "take it out of the dataset";
    MoreFindings "more-findings" Warning "there are more findings than are listed" "mend these and verify again";
    ImagesLeft "images-left" Warning "picture files are left under images/: a recording was not finished" "check that every episode has its video, then delete images/";

    // meta/info.json
    InfoKeyMissing "info-key-missing" Error "a key of info.json that lerobot cannot do without is missing" "add the key; the message names the value to write";
    InfoValue "info-value" Error "a value of info.json has the wrong type or is impossible" "write the value that the message names";
    InfoKeyUnknown "info-key-unknown" Info "info.json has a key that lerobot does not know and warns of" "take it out, or keep it elsewhere";
    InfoKeyRepeated "info-key-repeated" Warning "a key stands twice in info.json; readers take the last" "keep one of them";
    ConverterKeyMissing "converter-key-missing" Warning "v2.1 without total_chunks or total_videos: the converter to v3.0 fails" "add total_chunks and total_videos";
    VersionUnknown "version-unknown" Error "codebase_version is none that is known" "write \"v3.0\" if the files follow it, else convert the dataset";
    VersionOdd "version-odd" Warning "codebase_version is not spelt like a released version" "write exactly \"v3.0\" (or \"v2.1\", \"v2.0\")";
    VersionLayout "version-layout" Error "codebase_version says one layout, the files follow another" "write the version that the files follow, or convert the dataset";
    FpsInvalid "fps-invalid" Error "fps is no positive number" "write the true whole frame rate";
    FpsNotWhole "fps-not-whole" Warning "fps is no whole number; the format wants an integer" "resample to a whole rate, timestamps and videos included";
    FpsFloat "fps-float" Info "fps is a whole number written as a float" "write it without a decimal point";
    FpsMismatch "fps-mismatch" Warning "rows are stamped at an even rate that is not fps" "write the rate of the rows as fps, or stamp rows frame_index / fps";
    PathTemplate "path-template" Error "data_path or video_path does not fit the version" "write the template of the version, and lay the files out by it";
    TotalEpisodes "total-episodes" Error "total_episodes is not the number of episodes" "write the number of episodes";
    TotalFrames "total-frames" Error "total_frames is not the number of rows" "write the number of rows";
    TotalTasks "total-tasks" Error "total_tasks is not the number of tasks" "write the number of tasks";
    TotalVideos "total-videos" Warning "total_videos (v2) is not episodes times cameras" "write episodes times cameras";
    TotalChunks "total-chunks" Warning "total_chunks (v2) is not the number of chunks" "write episodes / chunks_size, rounded up";
    Splits "splits" Warning "splits name other episodes than there are" "write {\"train\": \"0:<total_episodes>\"}";

    // Features
    FeaturesEmpty "features-empty" Error "info.json declares no features" "declare every column and camera";
    FeatureRepeated "feature-repeated" Error "a feature is declared twice" "keep one of them";
    FeatureName "feature-name" Error "a feature name that lerobot forbids: empty or with a slash" "rename it, in data and metadata";
    FeatureShape "feature-shape" Error "a shape is missing or impossible" "write the sides of one sample";
    FeatureDtype "feature-dtype" Error "a dtype is missing or unknown" "write a numpy type, string, image or video";
    OwnFeatureMissing "own-feature-missing" Error "one of timestamp, frame_index, episode_index, index, task_index is not declared" "declare it, shape [1], names null";
    FrameIndexMissing "frame-index-missing" Warning "v2 without frame_index" "number the rows of each episode from 0";
    OwnFeatureType "own-feature-type" Warning "one of lerobot's own five columns has another type or shape than lerobot gives it" "timestamp is float32, the others int64, shape [1]";
    CameraNames "camera-names" Error "a camera without the names of its three sides: training crashes" "write [\"height\", \"width\", \"channels\"]";
    NamesMissing "names-missing" Warning "a vector of an action or observation has no names" "name every element; replay needs the names of action";
    NamesCount "names-count" Error "there are more or fewer names than elements" "name every element once";
    NamesRepeated "names-repeated" Error "a name stands twice in one feature" "give every element its own name";
    NamesNested "names-nested" Warning "names are nested lists or no list at all" "write one flat list";
    NamesOrder "names-order" Warning "action and state hold the same names in another order" "map by name, never by position; reorder one of them";
    ActionVelocity "action-velocity" Info "actions are velocities, states are positions" "do not replay them as positions; convert or say so in the dataset card";

    // Tasks
    TasksIndex "tasks-index" Error "tasks.parquet has no pandas index of the task texts: lerobot takes a number for the text" "write the pandas metadata with index_columns [\"task\"]";
    TasksColumn "tasks-column" Error "the task table lacks task_index or the texts" "write task_index and task";
    TasksOrder "tasks-order" Error "tasks do not stand in task_index order 0, 1, ...: texts are looked up by position" "sort by task_index and close the holes";
    TaskRepeated "task-repeated" Error "two tasks have the same text" "merge them, and renumber task_index in the data";
    TaskEmpty "task-empty" Warning "a task without text" "write what the robot was asked to do";
    TaskUnused "task-unused" Warning "a task that no row points to" "take it out if it is no instruction";
    TaskIndex "task-index" Error "a row points to a task that does not exist" "add the task, or point the rows to an existing one";
    EpisodeTask "episode-task" Warning "the tasks listed for an episode are not those of its rows or of the task table" "list the texts that the rows point to";

    // meta/episodes
    EpisodesMissing "episodes-missing" Error "there is no table of episodes; lerobot asks the Hub instead" "finish the recording (finalize), or restore meta/episodes";
    EpisodesColumn "episodes-column" Error "the table of episodes lacks a column that lerobot needs" "write the column; the message names it";
    EpisodesColumnOptional "episodes-column-optional" Warning "the table of episodes lacks a column that merging, editing or resuming needs" "write the column; the message names it";
    ColumnRepeated "column-repeated" Error "a column name stands twice in one file" "write each column once";
    EpisodesOrder "episodes-order" Error "row i of the table of episodes is not episode i: lerobot reads by position" "sort by episode_index";
    EpisodesGap "episodes-gap" Error "episode numbers have holes" "renumber on export, and keep the original number elsewhere";
    EpisodesRepeated "episodes-repeated" Error "an episode stands twice in the table" "keep one row for each episode";
    EpisodeRange "episode-range" Error "dataset_from_index and dataset_to_index do not follow from the lengths" "write the running sum of the lengths";
    EpisodeLength "episode-length" Error "an episode's length is not the number of its rows" "write the number of rows";
    EpisodeNoRows "episode-no-rows" Error "an episode of the metadata has no rows in the data" "take it out of the metadata, or restore its data file";
    EpisodeUnknown "episode-unknown" Error "rows of an episode that the metadata does not list" "add it to the metadata, or take its rows out";
    EpisodeElsewhere "episode-elsewhere" Error "an episode's rows lie in another file than the metadata says" "correct data/chunk_index and data/file_index";
    EpisodeMetaPlace "episode-meta-place" Warning "meta/episodes/chunk_index or file_index names another file than the one it stands in" "write the numbers of the file it stands in";
    EpisodeLong "episode-long" Warning "one episode is far longer than the others: several takes may have been saved as one" "look at it, and split it if it holds several takes";
    MetaDisagree "meta-disagree" Warning "two metadata files count differently" "keep the one that fits the data, delete the other";

    // Statistics
    StatsMissing "stats-missing" Warning "there are no statistics: training with default settings fails" "compute them, e.g. lerobot-edit-dataset recompute_stats";
    StatsFeature "stats-feature" Warning "a feature has no statistics" "compute them again";
    StatsKey "stats-key" Warning "min, max, mean, std or count is missing" "compute them again";
    StatsQuantiles "stats-quantiles" Warning "there are no quantiles: quantile normalisation (pi05) refuses the dataset" "compute them again with q01, q10, q50, q90, q99";
    StatsShape "stats-shape" Error "a statistic has the wrong shape: merging refuses it" "vectors: one number an element; images: 3 x 1 x 1; count: one number";
    StatsNotFinite "stats-not-finite" Error "a statistic is NaN, infinite or null" "take such values out of the data, compute again";
    StatsImplausible "stats-implausible" Warning "statistics contradict each other" "compute them again";
    StatsZeroSpread "stats-zero-spread" Warning "std is 0 or q01 equals q99: normalising divides by zero" "leave the elements out, or give them a floor when normalising";
    StatsDisagree "stats-disagree" Warning "statistics are not those of the data" "compute them again";
    StatsEpisodes "stats-episodes" Warning "episodes without statistics, or statistics without an episode" "compute them again";

    // Rows
    DataMissing "data-missing" Error "data files are missing" "copy them from the source, or take their episodes out of the metadata";
    ColumnMissing "column-missing" Error "a declared feature has no column" "write the column, or take the feature out of info.json";
    ColumnExtra "column-extra" Error "a column that info.json does not declare: lerobot refuses the file" "declare it as a feature, or take it out";
    ColumnType "column-type" Warning "a column is stored as another type than declared" "store the declared type; nothing may be rounded on the way";
    ListWidth "list-width" Error "a row holds another number of elements than the shape says" "write every row at full width";
    NullValue "null-value" Error "a row holds a null" "fill it, or leave the row out";
    NotFinite "not-finite" Error "a row holds NaN or infinity: training turns it into NaN" "find the sensor or division that made it; cut or fill the rows";
    RowsOrder "rows-order" Error "rows do not lie by episode" "sort by episode_index, then frame_index";
    EpisodeIndexWrong "episode-index" Error "a row's episode_index is impossible or not that of its file" "write the number of the episode";
    FrameIndexWrong "frame-index" Error "frame_index does not count 0, 1, ... in its episode" "number the rows of each episode from 0";
    IndexWrong "index" Error "index is not the row number in the dataset" "number all rows from 0 on";
    ConstantDimension "constant-dimension" Warning "an element never changes in the whole dataset" "leave it out of training, and check its sensor";
    Wrap "wrap" Info "a value jumps by a full turn between two rows: an angle that wraps, not fast motion" "unwrap the angle before differences are taken";

    // Timestamps
    TimestampZero "timestamp-zero" Error "all timestamps of an episode are 0" "write frame_index / fps";
    TimestampBackwards "timestamp-backwards" Error "time goes back or stands still inside an episode" "check where takes were joined; split the episode or stamp it frame_index / fps";
    TimestampNotReset "timestamp-not-reset" Error "timestamps go on from the episode before instead of starting at 0" "write frame_index / fps";
    TimestampOffset "timestamp-offset" Warning "timestamps are on the grid, but shifted by a constant" "write frame_index / fps";
    TimestampOffGrid "timestamp-off-grid" Warning "timestamps are a real clock, not frame_index / fps" "keep the real times in a feature of their own and stamp rows frame_index / fps; resample where that is wrong";
    TimestampGap "timestamp-gap" Warning "rows are more than one and a half ticks apart" "do not hide it: cut there, or resample and count the filled rows";

    // Videos
    VideoMissing "video-missing" Error "videos that the metadata names are missing" "copy them from the source";
    CameraWithoutVideo "camera-without-video" Warning "a declared camera (v2) has no video at all" "take the feature out of info.json, or add its videos";
    VideoDamaged "video-damaged" Error "a video's index cannot be read" "restore the file, or encode it again";
    VideoCut "video-cut" Error "a video ends in the middle: its index names bytes that are not there" "copy the file again, whole";
    VideoNoKeyFrame "video-no-key-frame" Error "a video does not begin with a key frame" "encode it again";
    VideoSize "video-size" Error "a video's pictures are not of the declared shape: the video's own size wins without a word" "correct the shape, or scale the video";
    VideoInfo "video-info" Warning "the info of a camera contradicts its video" "correct info.json";
    VideoFirstPts "video-first-pts" Error "a video's first picture is not at 0 s: pyav shows wrong pictures, torchcodec none" "remux so that time starts at 0";
    VideoTimeBase "video-time-base" Error "a video's time base is too coarse for its frame rate" "remux with a time base that is a multiple of fps, e.g. fps x 512";
    VideoFps "video-fps" Error "a video's mean frame rate is neither fps nor a multiple of it" "encode it again at fps";
    VideoFrames "video-frames" Error "a video has fewer pictures than its episodes have rows" "encode the missing pictures, or cut the episode";
    VideoOneShort "video-one-short" Warning "a video lacks exactly one picture, the last row's" "cut the last row, or repeat the last picture and say so";
    VideoExtra "video-extra" Warning "a video has more pictures than its episodes have rows" "check that they are no left-over of a discarded take";
    VideoSpan "video-span" Error "from_timestamp and to_timestamp are missing, reversed, or not length / fps apart" "compute both from whole frame numbers: offset / fps";
    VideoSpanEnd "video-span-end" Error "an episode's span ends after its video does" "correct from_timestamp, or the file number";
    VideoSpanOverlap "video-span-overlap" Error "two episodes claim the same part of a video" "correct from_timestamp and to_timestamp";
    VideoUnclaimed "video-unclaimed" Warning "pictures before or between episodes belong to none" "check that from_timestamp is not late";
    VideoFrameTime "video-frame-time" Error "rows whose time meets no picture within 0.1 ms: lerobot raises FrameTimestampError" "make from_timestamp, timestamp and the video's times agree";
    VideoDrift "video-drift" Warning "timestamps and the video's times run apart (v2)" "do not overwrite either; resample when converting";
}

/// The table of all codes as Markdown, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| code | severity | what it means | what to do |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let severity = match code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        text.push_str(&format!("| {} | {severity} | {} | {} |\n", code.name(), code.what(), code.remedy()));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_kebab_case_name_of_its_own_and_both_texts() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.name().chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'), "{}", code.name());
            assert!(!code.what().is_empty() && !code.remedy().is_empty());
        }
        assert_eq!(markdown().lines().count(), Code::ALL.len() + 2);
    }
}
